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

from whet.base.errors import NumericalError
from whet.calibrate.statistics import Cross, Gram, Residual, Statistic, Stats
from whet.formats.codec import Search
from whet.formats.lowrank import leading
from whet.formats.spec import Float as Plain
from whet.formats.spec import Format, LowRank, Shape, smaller_group
from whet.formats.weight import Weight, written
from whet.methods.solve.complete import Problem
from whet.methods.solve.facts import raised, told
from whet.methods.solve.nearest import weight_error
from whet.methods.solve.posed import drift_of, factored
from whet.methods.solve.product import Coding, Norm, Worth, nearest_product
from whet.methods.solve.target import corrected
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass, Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Svd(LinearPass):
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
    damping: float = field(
        default=0.01, metadata=says("added to H's diagonal, as a share of its mean [1]")
    )
    alpha: float = field(
        default=0.75, metadata=says("how far inputs are corrected for earlier damage, 0 to 1 [1]")
    )
    alpha_down: float = field(
        default=0.75, metadata=says("the same for mlp.down, whose inputs drift most [1]")
    )
    rho: float = field(
        default=0.75, metadata=says("how far o and down repair the residual stream, 0 to 1 [1]")
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent on factors in codes [1]")
    )
    least_tokens: float = field(
        default=0.1, metadata=says("tokens an input below which the SVD is plain [1]")
    )

    def __post_init__(self) -> None:
        """Refuse settings out of their range, and formats that are no product."""
        if not isinstance(self.format, LowRank):
            raise ValueError(f"format is {self.format}, expected a product, e.g. lowrank-64")  # noqa: TRY004 - settings are values
        for name in ("size", "energy", "alpha", "alpha_down", "rho"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name in ("gain", "damping", "sweeps", "least_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the Gram matrix and what the corrections for drift read; nothing if plain."""
        if self.norm == "plain":
            return ()
        cross = (Cross,) if self.alpha or self.alpha_down else ()
        return (Gram, *cross, *((Residual,) if self.rho else ()))

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
        gram, inputs = stats[Gram], weight.shape[1]
        if gram.tokens < max(self.least_tokens * inputs, 1):
            return self._plain(weight, f"{gram.tokens} calibration tokens for {inputs} inputs")
        try:
            found = factored(gram, self.damping)
        except NumericalError as error:
            return self._plain(weight, error.message)
        alpha = self.alpha_down if role.endswith(".down") else self.alpha
        target, shift = corrected(weight, drift_of(stats, alpha, self.rho), found)
        assert isinstance(self.format, LowRank)
        coding, worth = Coding(Search("hessian"), self.sweeps), Worth(self.energy, self.gain)
        problem = Problem(target, gram.symmetric(), found)
        product = nearest_product(problem, self.format, self.norm, coding, worth)
        new = Weight(product.format, product.planes, (weight.shape[0], inputs))
        return Rewrite(new, told(weight, target, shift, found, product.values), raised(found))

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
