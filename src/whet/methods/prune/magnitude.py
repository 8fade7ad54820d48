"""Keep the weights of greatest magnitude: the baseline, and the criterion without data.

Han, Pool, Tran, Dally, "Learning both Weights and Connections" (arXiv:1506.02626). With `refit` the kept
weights then become those of least output error (ALPS, arXiv:2406.07831, §3).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Statistic, Stats
from whet.formats import spec
from whet.formats.pattern import Within
from whet.formats.sparse import kept
from whet.formats.spec import Format
from whet.methods.solve.prune import Asked, Filling, filled, sparse_of
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass, Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(LinearPass):
    """Keep the weights of greatest magnitude; no calibration, unless they are refitted."""

    name: ClassVar[str] = "magnitude"
    prunes: ClassVar[bool] = True
    format: Format = field(
        default=spec.Sparse(Within(2, 4), spec.Float()),
        metadata=says("which weights stay, and how they are stored"),
    )
    refit: bool = field(
        default=False, metadata=says("fit the kept weights by least squares; needs calibration")
    )
    damping: float = field(
        default=0.01, metadata=says("added to H's diagonal, as a share of its mean, by refit [1]")
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent over codes, by refit [1]")
    )
    range_steps: int = field(default=20, metadata=says("ranges tried for each group of codes [1]"))

    def __post_init__(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        sparse_of(self.format)
        for name, least in (("damping", 0), ("sweeps", 0), ("range_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more")

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return what refitting reads."""
        return self._filling.needs

    @property
    def _filling(self) -> Filling:
        asked = Asked(damping=self.damping)
        return Filling(refit=self.refit, sweeps=self.sweeps, steps=self.range_steps, asked=asked)

    def refuses(self, site: Site) -> str | None:
        """Refuse to refit embeddings, which read no activation."""
        embed = site.role == "embed" and self.refit
        return "an embedding reads no activations; leave out refit" if embed else None

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the pruned weight."""
        codec = sparse_of(self.format)
        with threads_for(weight.numel()):
            return filled(weight, kept(weight.abs(), codec.pattern), codec, stats, self._filling)
