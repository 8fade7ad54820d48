"""Truncated SVD: a weight as a product of two narrow matrices, best for the outputs or for itself.

Whitened, activation-aware SVD: Wang, Zheng, Wan, Zhang, "SVD-LLM" (arXiv:2403.07378, §3), computed
from the outputs' principal components; weighed by channels: Yuan, Shang, Song, Wu, Yan, Sun, "ASVD"
(arXiv:2312.05821, §3.2). The target makes good what earlier layers have lost. The mathematics is in
`whet.methods.solve`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Statistic, Stats
from whet.formats.codec import Search
from whet.formats.lowrank import leading
from whet.formats.spec import Float as Plain
from whet.formats.spec import Format, LowRank, Shape, smaller_group
from whet.formats.weight import Weight, written
from whet.methods.solve.aiming import Aiming
from whet.methods.solve.checks import within
from whet.methods.solve.nearest import weight_error
from whet.methods.solve.product import Coding, Norm, Worth, nearest_product
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass, Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Svd(Aiming):
    """Replace a weight by a product of two narrow matrices, the nearest for what it puts out."""

    name: ClassVar[str] = "svd"
    format: Format = field(
        default=LowRank(64), metadata=says("rank and factors of the result, e.g. lowrank-64")
    )
    size: float = field(
        default=0.0,
        metadata=says("the rank is what takes this share of a bf16 matrix; 0: the format's [1]"),
    )
    energy: float = field(
        default=0.0,
        metadata=says("fewer ranks where these keep this share of the outputs' energy; 0: all [1]"),
    )
    gain: float = field(
        default=0.0,
        metadata=says("ranks that bring this share of it for a million numbers; 0: all [1]"),
    )
    norm: Norm = field(
        default="outputs",
        metadata=says("what is kept: the outputs, inputs weighed by channels, or plain weights"),
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent on factors in codes [1]")
    )

    def check(self) -> None:
        """Refuse settings out of their range, and formats that are no product."""
        if not isinstance(self.format, LowRank):
            raise ValueError(f"format is {self.format}, expected a product, e.g. lowrank-64")  # noqa: TRY004 - settings are values
        Aiming.check(self)
        within(self, shares=("size", "energy"), least={"gain": 0})

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the Gram matrix and what the corrections for drift read; nothing if plain."""
        return () if self.norm == "plain" else self.statistics()

    def refuses(self, site: Site) -> str | None:
        """Refuse embeddings, whose rows are looked up."""
        return "the rows of an embedding are looked up" if site.role == "embed" else None

    def fitted(self, site: Site) -> LinearPass:
        """Return these settings with the rank for a site."""
        format_ = smaller_group(self.format, site.shape[1])
        assert isinstance(format_, LowRank)
        return replace(self, format=affordable(format_, site.shape, self.size))

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the nearest product."""
        if self.norm == "plain":
            return self._plain(weight, None)
        with threads_for(weight.numel()):
            return self._nearest(weight, stats, role)

    def _nearest(self, weight: Float[Tensor, "out in"], stats: Stats, role: str) -> Rewrite:
        aim = self.aim(weight, stats, role)
        if isinstance(aim, str):
            return self._plain(weight, aim)
        assert isinstance(self.format, LowRank)
        coding, worth = Coding(Search("hessian"), self.sweeps), Worth(self.energy, self.gain)
        product = nearest_product(aim.problem, self.format, self.norm, coding, worth)
        new = Weight(product.format, product.planes, (weight.shape[0], weight.shape[1]))
        return Rewrite(new, aim.facts(product.values), aim.fallback)

    def _plain(self, weight: Float[Tensor, "out in"], why: str | None) -> Rewrite:
        """Return the product that is nearest to the weight itself, saying why."""
        assert isinstance(self.format, LowRank)
        exact = weight.double()
        rank = Worth(self.energy, self.gain).rank(leading(exact, self.format.rank), exact)
        new = written(weight, replace(self.format, rank=rank))
        facts = {"weight_error": weight_error(new, weight)}
        return Rewrite(new, facts, why and f"singular values of the weight alone: {why}")


def affordable(format_: LowRank, shape: Shape, size: float) -> LowRank:
    """Return a product of the largest rank that takes no more than a share of a bf16 matrix.

    At least of rank one; the format itself where no share is asked for.
    """
    if not size:
        return format_
    most = size * Plain().bits(shape)
    low, high = 1, min(shape)
    while low < high:
        middle = (low + high + 1) // 2
        fits = replace(format_, rank=middle).bits(shape) <= most
        low, high = (middle, high) if fits else (low, middle - 1)
    return replace(format_, rank=low)
