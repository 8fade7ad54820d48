"""ALPS: choose all weights that stay together, then give them their best values.

Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large
Language Models" (arXiv:2406.07831, §3): a mask by ADMM, then exact least squares on it; here for a
target that makes good what earlier layers have lost (QEP, arXiv:2504.09629). With a format of codes
the kept weights are rounded column by column and improved by coordinate descent (QuantEase,
arXiv:2309.01885), for the same loss and with the mask as it is: pruned and rounded as one problem.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Statistic, Stats
from whet.formats import spec
from whet.formats.codec import Search
from whet.formats.pattern import Within
from whet.formats.spec import Format
from whet.methods.solve.prune import (
    Asked,
    best_support,
    posed,
    settled,
    solution,
    sparse_of,
    unable,
)
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass, Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Alps(LinearPass):
    """Choose the mask by ADMM, then the kept weights by least squares or, of codes, by descent."""

    name: ClassVar[str] = "alps"
    prunes: ClassVar[bool] = True
    format: Format = field(
        default=spec.Sparse(Within(2, 4), spec.Float()),
        metadata=says("which weights stay, and how they are stored"),
    )
    turns: int = field(default=300, metadata=says("turns of ADMM, at most [1]"))
    damping: float = field(
        default=0.01, metadata=says("added to H's diagonal, as a share of its mean [1]")
    )
    alpha: float = field(
        default=0.75, metadata=says("how far inputs are corrected for earlier damage, 0 to 1 [1]")
    )
    rho: float = field(
        default=0.75, metadata=says("how far o and down repair the residual stream, 0 to 1 [1]")
    )
    sweeps: int = field(default=8, metadata=says("passes of coordinate descent over codes [1]"))
    range_steps: int = field(default=20, metadata=says("ranges tried for each group of codes [1]"))
    least_tokens: float = field(
        default=0.1, metadata=says("tokens an input below which magnitude decides [1]")
    )

    def __post_init__(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        sparse_of(self.format)
        for name in ("alpha", "rho"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name, least in (("turns", 0), ("damping", 0), ("sweeps", 0), ("range_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more")

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the Gram matrix, and what the corrections for drift read."""
        return self._asked.needs

    @property
    def _asked(self) -> Asked:
        return Asked(
            damping=self.damping, alpha=self.alpha, rho=self.rho, least_tokens=self.least_tokens
        )

    def refuses(self, site: Site) -> str | None:
        """Refuse embeddings, which read no activation."""
        embed = site.role == "embed"
        return "an embedding reads no activations; use magnitude" if embed else None

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the pruned weight."""
        codec = sparse_of(self.format)
        with threads_for(weight.numel()):
            problem = posed(weight, stats, self._asked)
            if isinstance(problem, str):
                return unable(weight, codec, problem)
            mask, free = best_support(problem, codec.pattern, self.turns)
            search = Search("hessian", self.range_steps)
            new = settled(problem, mask, codec, search, self.sweeps, free)
            return solution(problem, weight, mask, new)
