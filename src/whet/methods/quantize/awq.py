"""AWQ: enlarge the channels that matter before rounding, and shrink their inputs as much.

Lin, Tang, Tang, Yang, Chen, Wang, Wang, Xiao, Dang, Gan, Han, "AWQ" (arXiv:2306.00978, §3.2,
eq. 5): channel j is divided by E|x_j|^a, for the a of least output error. The error of each a is
computed exactly from H = E[xxᵀ], as tr(Δ H Δᵀ) with Δ = round(W diag(s)) diag(s)⁻¹ - W.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Energy, Gram, Statistic, Stats
from whet.formats.codec import Search
from whet.formats.element import Integer
from whet.formats.spec import Coded, Format
from whet.methods.solve.equalise import Readers, as_folded, readers
from whet.methods.solve.nearest import nearest
from whet.model.block import Block
from whet.passes.block_pass import BlockPass, Change, Observe
from whet.passes.linear_pass import says

LEAST = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq(BlockPass):
    """Rescale channels for the format that a later step will round to."""

    name: ClassVar[str] = "awq"
    format: Format = field(
        default=Coded(Integer(4)), metadata=says("number format that weights will be rounded to")
    )
    steps: int = field(default=20, metadata=says("exponents tried, evenly from 0 to 1 [1]"))

    def __post_init__(self) -> None:
        """Refuse an empty search."""
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected 1 or more")

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the Gram matrix and the size of the channels."""
        return (Gram, Energy)

    def rewrite(self, block: Block, roles: tuple[str, ...], observe: Observe) -> Change:
        """Return what the channels of each tap are to be divided by."""
        folds: dict[str, Tensor] = {}
        facts: dict[str, dict[str, Quantity]] = {}
        fallbacks: dict[str, str] = {}
        for group in readers(block, roles):
            if group.refusal:
                fallbacks[group.tap] = f"channels left as they are: {group.refusal}"
                continue
            stats = observe(group.tap, self.needs)
            if not stats.tokens:
                fallbacks[group.tap] = "channels left as they are: no calibration token came here"
                continue
            scale, facts[group.tap] = self._searched(block, group, stats)
            if scale is not None:
                folds[group.tap] = scale
        return Change(folds=folds, facts=facts, fallbacks=fallbacks)

    def _searched(
        self, block: Block, group: Readers, stats: Stats
    ) -> tuple[Tensor | None, dict[str, Quantity]]:
        """Return the best scale, None if that is 1 throughout, and how good it is."""
        weight, H = group.weights(block), stats[Gram].mean()
        size = stats[Energy].mean_magnitude()
        plain = output_error(weight, torch.ones_like(size), H, self.format)
        best, chosen, exponent = plain, None, 0.0
        for step in range(1, self.steps):
            trial = step / self.steps
            scale = as_folded(block, group.tap, enlarged(size, trial))
            error = output_error(weight, scale, H, self.format)
            if error < best:
                best, chosen, exponent = error, scale, trial
        return chosen, {
            "exponent": Quantity(exponent, "1", "a in E|x|^a"),
            "error_ratio": Quantity(
                best / plain if plain > 0 else 1.0, "1", "tr(ΔHΔᵀ) ÷ that without rescaling"
            ),
        }


def enlarged(size: Float[Tensor, "in"], exponent: float) -> Float[Tensor, "in"]:
    """Return size^exponent, its greatest and least reciprocal to each other."""
    scale = size.clamp(min=LEAST * float(size.amax().clamp(min=LEAST))) ** exponent
    return scale / (scale.amax() * scale.amin()).sqrt()


def output_error(
    weight: Float[Tensor, "out in"],
    scale: Float[Tensor, "in"],
    H: Float[Tensor, "in in"],
    format_: Format,
) -> float:
    """Return tr(ΔHΔᵀ) of rounding a weight whose columns are multiplied by `scale`."""
    rounded = nearest(weight * scale, format_, Search("mse", 10)).dense()
    delta = rounded / scale - weight
    return float(((delta @ H) * delta).sum(dtype=torch.float64))
