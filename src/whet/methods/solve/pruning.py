"""What methods have in common that choose which weights stay: their settings, and what they refuse."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Energy, Gram, Statistic, Stats
from whet.formats import spec
from whet.formats.pattern import Share, Within, share_of
from whet.formats.sparse import kept
from whet.formats.spec import Format
from whet.methods.solve.checks import within
from whet.methods.solve.prune import Asked, Filling, filled, sparse_of, unable
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import ByOutliers, ByRanking, LinearPass, Rewrite, Shares, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning(LinearPass):
    """A choice of the weights that stay, in a sparse format."""

    prunes: ClassVar[bool] = True
    format: Format = field(
        default=spec.Sparse(Within(2, 4), spec.Float()),
        metadata=says("which weights stay, and how they are stored"),
    )
    damping: float = field(
        default=0.01, metadata=says("added to H's diagonal, as a share of its mean [1]")
    )
    range_steps: int = field(default=20, metadata=says("ranges tried for each group of codes [1]"))
    allocation: Literal["uniform", "owl", "global"] = field(
        default="uniform",
        metadata=says(
            "share of each layer: uniform, owl (more stays where outliers are), or global (one "
            "ranking of all magnitudes)"
        ),
    )
    spread: float = field(
        default=0.08, metadata=says("by owl, the farthest share from the mean ÷ 2, 0 to 0.5 [1]")
    )
    outlier: float = field(
        default=5.0, metadata=says("by owl, how often the mean makes an outlier [1]")
    )

    def __post_init__(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        self.check()

    def check(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        pattern = sparse_of(self.format).pattern
        within(self, least={"damping": 0, "range_steps": 1, "outlier": 0})
        if not 0 <= self.spread <= 0.5:
            raise ValueError(f"spread is {self.spread}, expected 0 to 0.5")
        if self.shares and not isinstance(pattern, Share):
            raise ValueError(
                f"format {self.format} keeps the same of every layer, so allocation is uniform; "
                f"{self.allocation} wants a share, e.g. sparse50-tensor(bf16)"
            )
        if self.allocation == "global" and not (isinstance(pattern, Share) and pattern.whole):
            raise ValueError(
                f"format {self.format} keeps the same of every row, and one ranking does not; "
                f"global wants a share of matrices, e.g. sparse50-tensor(bf16)"
            )

    @property
    def shares(self) -> Shares | None:
        """Return how shares of blocks follow from the whole model, if they do."""
        if self.allocation == "global":
            return ByRanking()
        return ByOutliers(self.spread, self.outlier) if self.allocation == "owl" else None

    def allotted(self, site: Site, stays: int) -> LinearPass:
        """Return these settings for a site of which so many weights stay."""
        fitted = self.fitted(site)
        assert isinstance(fitted.format, spec.Sparse)
        pattern = fitted.format.pattern
        assert isinstance(pattern, Share)
        rows, inputs = site.shape
        count = inputs * rows if pattern.whole else inputs
        changed = share_of(count, stays if pattern.whole else stays // rows, whole=pattern.whole)
        return replace(fitted, format=replace(fitted.format, pattern=changed))  # type: ignore[type-var]

    def refuses(self, site: Site) -> str | None:
        """Refuse embeddings, which read no activation."""
        embed = site.role == "embed"
        return "an embedding reads no activations; use magnitude" if embed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored(Pruning):
    """Weights of the greatest scores stay, as they are or fitted anew."""

    refit: bool = field(
        default=False, metadata=says("fit the kept weights by least squares; needs calibration")
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent over codes, by refit [1]")
    )

    def check(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        Pruning.check(self)
        within(self, least={"sweeps": 0})

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the size of the inputs, and what refitting reads."""
        return self.filling.needs or (Energy,)

    @property
    def filling(self) -> Filling:
        """Return what becomes of what stays."""
        asked = Asked(damping=self.damping)
        return Filling(refit=self.refit, sweeps=self.sweeps, steps=self.range_steps, asked=asked)

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the pruned weight."""
        codec = sparse_of(self.format)
        square = stats[Gram].diagonal() if self.refit else stats[Energy].mean_square()
        with threads_for(weight.numel()):
            if not square.any():
                return unable(weight, codec, "no calibration token came here")
            mask = kept(self.scores(weight, square), codec.pattern)
            return filled(weight, mask, codec, stats, self.filling, square)

    @abstractmethod
    def scores(
        self, weight: Float[Tensor, "out in"], square: Float[Tensor, "in"]
    ) -> Float[Tensor, "out in"]:
        """Return what speaks for each weight; `square` is the mean square of each input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted(Pruning):
    """Weights are chosen for what the output loses, and make good what earlier layers have lost."""

    alpha: float = field(
        default=0.0, metadata=says("how far inputs are corrected for earlier damage, 0 to 1 [1]")
    )
    rho: float = field(
        default=0.0, metadata=says("how far o and down repair the residual stream, 0 to 1 [1]")
    )
    sweeps: int = field(default=4, metadata=says("passes of coordinate descent over codes [1]"))
    least_tokens: float = field(
        default=0.1, metadata=says("tokens an input below which magnitude decides [1]")
    )

    def check(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        Pruning.check(self)
        within(self, shares=("alpha", "rho"), least={"sweeps": 0, "least_tokens": 0})

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the Gram matrix, and what the corrections for drift read."""
        return self.asked.needs

    @property
    def asked(self) -> Asked:
        """Return how a layer's problem is posed."""
        return Asked(
            damping=self.damping, alpha=self.alpha, rho=self.rho, least_tokens=self.least_tokens
        )
