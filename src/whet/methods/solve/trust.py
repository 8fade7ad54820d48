"""How far a correction is to be believed that was learned from few tokens.

The correction of a weight for drift is a regression of what has drifted, D (tokens × channels), on d
inputs. On n tokens even pure noise seems explained, to d/n of its energy, and a target that follows it is
wrong by as much on all other text. Of the energy t = ‖D‖², e = tr(C H⁻¹ Cᵀ) is explained, with
C = DᵀX and H = XᵀX. The noise in it is estimated by what is not explained, u = (t - e)·d/(n - d), and
the share of the correction that loses least on other tokens is

    s = (e - u)/e    between 0 and 1; 0 where n ≤ d

This is the adjusted R² of the regression (Theil, "Economic Forecasts and Policy", 1961) over its
plain R², which also is the shrinkage of James and Stein (1961) for many channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.methods.solve.factor import Factor

STRIP = 512  # channels that are solved for at once


def trusted(
    seen: Float[Tensor, "*channels"],
    every: Float[Tensor, "*channels"],
    inputs: int,
    tokens: int,
) -> Float[Tensor, "*channels"]:
    """Return s of what was `seen` to be explained of `every` energy: e and t.

    Law: what inputs explain is believed, what is unrelated to them is not.
    """
    if tokens <= inputs:
        return torch.zeros_like(seen)
    noise = (every - seen).clamp(min=0) * inputs / (tokens - inputs)
    return (1 - noise / seen).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)


def explained(product: Float[Tensor, "channels in"], factor: Factor) -> Float[Tensor, "channels"]:
    """Return the energy of each channel that the inputs explain: the squares of L⁻¹c, for C = DᵀX."""
    found = [
        torch.linalg.solve_triangular(factor.lower, some[:, factor.order].T, upper=False)
        .square_()
        .sum(0)
        for some in product.split(STRIP)
    ]
    return torch.cat(found)
