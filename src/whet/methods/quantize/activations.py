"""Quantize what linears read: a scale for each token as it comes, or one fixed by calibration."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.range import Range
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.activation import Activation
from whet.methods.solve.clip import Rule, fixed_scale
from whet.model.block import Block
from whet.passes.block_pass import BlockPass, Change, Observe
from whet.passes.linear_pass import says


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations(BlockPass):
    """Attach a number format to the inputs of linears; best before the step for their weights."""

    name: ClassVar[str] = "activations"
    activation: Activation = field(
        default=Activation(), metadata=says("number format of the inputs, e.g. int8-token")
    )
    range: Rule = field(default="mse", metadata=says("what the range of a static format minimises"))
    percentile: float = field(
        default=0.9999, metadata=says("share of values that range=percentile covers [1]")
    )

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 < self.percentile <= 1:
            raise ValueError(f"percentile is {self.percentile}, expected above 0, at most 1")

    @property
    def everywhere(self) -> Activation | None:
        """Return the format where nothing has to be observed for it."""
        return None if self.activation.static else self.activation

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the range of inputs, if it is to be fixed."""
        return (Range,) if self.activation.static else ()

    def rewrite(self, block: Block, roles: tuple[str, ...], observe: Observe) -> Change:
        """Return the activation format of each role, with its scale if that is fixed."""
        chosen = [site for site in block.sites if site.role in roles]
        if not self.activation.static:
            return Change(activations={site.role: (self.activation, None) for site in chosen})
        activations: dict[str, tuple[Activation, Tensor | None]] = {}
        facts: dict[str, dict[str, Quantity]] = {}
        fallbacks: dict[str, str] = {}
        seen: dict[str, Stats] = {}
        for site in chosen:
            if site.tap not in seen:
                seen[site.tap] = observe(site.tap, self.needs)
            found = seen[site.tap][Range]
            if found.tokens:
                scale = fixed_scale(found, self.activation, self.range, self.percentile)
                activations[site.role] = (self.activation, scale)
                facts[site.role] = _facts(found, scale)
            else:
                fallbacks[site.role] = "inputs left as they are: no calibration token came here"
        return Change(activations=activations, facts=facts, fallbacks=fallbacks)


def _facts(seen: Range, scale: Tensor) -> dict[str, Quantity]:
    return {
        "input_low": Quantity(seen.low, "activation", "least value seen"),
        "input_high": Quantity(seen.high, "activation", "greatest value seen"),
        "input_scale": Quantity(float(scale[0]), "activation", "width of one code"),
    }
