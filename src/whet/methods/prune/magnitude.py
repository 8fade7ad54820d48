"""Keep the weights of greatest magnitude: the baseline, and the criterion without data.

Han, Pool, Tran, Dally, "Learning both Weights and Connections" (arXiv:1506.02626). With `refit` the kept
weights then become those of least output error (ALPS, arXiv:2406.07831, §3).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Statistic, Stats
from whet.formats.sparse import kept
from whet.methods.solve.prune import filled, sparse_of
from whet.methods.solve.pruning import Scored
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import Rewrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(Scored):
    """Keep the weights of greatest magnitude; no calibration, unless they are refitted."""

    name: ClassVar[str] = "magnitude"

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return what refitting reads."""
        return self.filling.needs

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
            return filled(weight, kept(weight.abs(), codec.pattern), codec, stats, self.filling)

    def scores(
        self, weight: Float[Tensor, "out in"], square: Float[Tensor, "in"]
    ) -> Float[Tensor, "out in"]:
        """Return the magnitudes."""
        return weight.abs()
