"""Keep the weights that matter most to their row, to their column and to the output.

Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning Method for
Large Language Models" (ICLR 2024), relative importance and activations:

    (|W_ij| / Σ_j |W_ij| + |W_ij| / Σ_i |W_ij|) · ‖x_j‖^power

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

TINY = 1e-30  # below every sum that is not zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Ria(LinearPass):
    """Keep the weights of greatest share in row and column, times input size to a power."""

    name: ClassVar[str] = "ria"
    prunes: ClassVar[bool] = True
    format: Format = field(
        default=spec.Sparse(Within(2, 4), spec.Float()),
        metadata=says("which weights stay, and how they are stored"),
    )
    power: float = field(default=0.5, metadata=says("exponent of the size of the inputs [1]"))
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
        for name, least in (("power", 0), ("damping", 0), ("sweeps", 0), ("range_steps", 1)):
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
            scores = importance(weight, square, self.power)
            return filled(weight, kept(scores, codec.pattern), codec, stats, self._filling, square)


def importance(
    weight: Float[Tensor, "out in"], square: Float[Tensor, "in"], power: float
) -> Float[Tensor, "out in"]:
    """Return the relative importance of each weight, times its input's size to a power."""
    size = weight.abs()
    rows, columns = size.sum(1, keepdim=True), size.sum(0, keepdim=True)
    share = size / rows.clamp(min=TINY) + size / columns.clamp(min=TINY)
    return share * square.sqrt() ** power
