"""SmoothQuant: move the outliers of activations into the weights, where they do less harm.

Xiao, Lin, Seznec, Wu, Demouth, Han, "SmoothQuant" (arXiv:2211.10438, eq. 4): channel j is divided
by max|x_j|^strength ÷ max|W_j|^(1-strength), and the columns that read it are multiplied by that.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Energy, Statistic
from whet.methods.solve.equalise import as_folded, readers
from whet.model.block import Block
from whet.passes.block_pass import BlockPass, Change, Observe
from whet.passes.linear_pass import says

LEAST = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothQuant(BlockPass):
    """Even out channels between activations and weights, changing nothing that is computed."""

    name: ClassVar[str] = "smoothquant"
    strength: float = field(
        default=0.5, metadata=says("share of the outliers moved into weights, 0 to 1 [1]")
    )

    def __post_init__(self) -> None:
        """Refuse a strength out of its range."""
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength}, expected 0 to 1")

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the size of the channels."""
        return (Energy,)

    def rewrite(self, block: Block, roles: tuple[str, ...], observe: Observe) -> Change:
        """Return what the channels of each tap are to be divided by."""
        folds: dict[str, Tensor] = {}
        facts: dict[str, dict[str, Quantity]] = {}
        fallbacks: dict[str, str] = {}
        for group in readers(block, roles):
            if group.refusal:
                fallbacks[group.tap] = f"channels left as they are: {group.refusal}"
                continue
            peak = observe(group.tap, self.needs)[Energy].peak
            scale = smoothing(peak, group.weights(block).abs().amax(0), self.strength)
            folds[group.tap] = as_folded(block, group.tap, scale)
            facts[group.tap] = {
                "outlier_before": _outlier(peak),
                "outlier_after": _outlier(peak / folds[group.tap]),
            }
        return Change(folds=folds, facts=facts, fallbacks=fallbacks)


def smoothing(
    peak: Float[Tensor, "in"], weight: Float[Tensor, "in"], strength: float
) -> Float[Tensor, "in"]:
    """Return the divisor of each channel; 1 for channels without activation or weight."""
    usable = (peak > 0) & (weight > 0)
    scale = peak.clamp(min=LEAST) ** strength / weight.clamp(min=LEAST) ** (1 - strength)
    return torch.where(usable, scale.clamp(min=LEAST), 1.0)


def _outlier(peak: Tensor) -> Quantity:
    middle = float(peak.median())
    value = float(peak.amax()) / middle if middle > 0 else 0.0
    return Quantity(value, "1", "greatest ÷ median channel, by max|x|")
