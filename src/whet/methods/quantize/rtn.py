"""Round to nearest, with a search for the range: the baseline, and the method without data.

Ranges by squared error, by squared error weighted with the mean square of each input (the diagonal
of H; the importance matrix of llama.cpp), by a quantile, or by the Kullback-Leibler divergence of
histograms (Migacz, "8-bit inference with TensorRT", GTC 2017).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Energy, Statistic, Stats
from whet.formats.codec import Search
from whet.formats.element import Integer
from whet.formats.spec import Coded, Format
from whet.methods.solve.nearest import nearest, weight_error
from whet.passes.linear_pass import LinearPass, Rewrite, says

Rule = Literal["minmax", "percentile", "mse", "kl", "hessian"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtn(LinearPass):
    """Round each weight to the nearest value; no calibration, unless the range asks for it."""

    name: ClassVar[str] = "rtn"
    format: Format = field(default=Coded(Integer(4)), metadata=says("number format of the result"))
    range: Rule = field(
        default="mse",
        metadata=says("what the range of a group minimises; hessian needs calibration"),
    )
    range_steps: int = field(default=40, metadata=says("ranges tried for each group [1]"))
    percentile: float = field(
        default=0.999, metadata=says("share of a group that range=percentile covers [1]")
    )

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        if self.range_steps < 1:
            raise ValueError(f"range_steps is {self.range_steps}, expected 1 or more")
        if not 0 < self.percentile <= 1:
            raise ValueError(f"percentile is {self.percentile}, expected above 0, at most 1")

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the mean square of inputs, if ranges are weighted by it."""
        return (Energy,) if self.range == "hessian" else ()

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the rounded weight."""
        rule, importance, fallback = self.range, None, None
        if rule == "hessian":
            energy = stats[Energy]
            importance = energy.mean_square()
            if not energy.tokens or not importance.any():
                rule, importance = "mse", None
                fallback = "ranges by plain squared error: no calibration token came here"
        search = Search(rule, self.range_steps, percentile=self.percentile)
        new = nearest(weight, self.format, search, importance)
        return Rewrite(new, {"weight_error": weight_error(new, weight)}, fallback)
