"""Keep the weights that move the output most: magnitude times the size of the input.

Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models"
(arXiv:2306.11695, §3): |W_ij|·‖x_j‖, compared within each output, which row patterns do by themselves.
With `refit` the kept weights then become those of least output error (ALPS, arXiv:2406.07831, §3).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Energy, Gram, Statistic, Stats
from whet.formats import spec
from whet.formats.pattern import Within
from whet.formats.sparse import kept
from whet.formats.spec import Format
from whet.methods.solve.prune import Asked, Filling, filled, sparse_of, unable
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass, Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanda(LinearPass):
    """Keep the weights of greatest magnitude times input size; no weight is changed, unless refitted."""

    name: ClassVar[str] = "wanda"
    prunes: ClassVar[bool] = True
    format: Format = field(
        default=spec.Sparse(Within(2, 4), spec.Float()),
        metadata=says("which weights stay, and how they are stored"),
    )
    refit: bool = field(default=False, metadata=says("fit the kept weights by least squares"))
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
        """Return the size of the inputs, and what refitting reads."""
        return self._filling.needs or (Energy,)

    @property
    def _filling(self) -> Filling:
        asked = Asked(damping=self.damping)
        return Filling(refit=self.refit, sweeps=self.sweeps, steps=self.range_steps, asked=asked)

    def refuses(self, site: Site) -> str | None:
        """Refuse embeddings, which read no activation."""
        embed = site.role == "embed"
        return "an embedding reads no activations; use magnitude" if embed else None

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the pruned weight."""
        codec = sparse_of(self.format)
        square = stats[Gram].diagonal() if self.refit else stats[Energy].mean_square()
        with threads_for(weight.numel()):
            if not square.any():
                return unable(weight, codec, "no calibration token came here")
            mask = kept(weight.abs() * square.sqrt(), codec.pattern)
            return filled(weight, mask, codec, stats, self._filling, square)
