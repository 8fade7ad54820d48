"""The contract of a method that rewrites one linear weight at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.spec import Format, smaller_group
from whet.formats.weight import Weight
from whet.model.site import Site


def says(doc: str) -> dict[str, str]:
    """Return the metadata of a setting: what it means, with its unit; shown to users."""
    return {"doc": doc}


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """A new weight and what is known about it.

    `fallback` is set when the method could not do what it was asked, and says what it did instead.
    """

    weight: Weight
    facts: Mapping[str, Quantity] = field(default_factory=dict[str, Quantity])
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class ByOutliers:
    """How much more stays of a block than of another follows from its outliers.

    Outliers are more than `outlier` times their mean; shares lie `spread` · 2 apart at the farthest.
    """

    spread: float
    outlier: float


@dataclass(frozen=True, slots=True)
class ByRanking:
    """How much stays of each matrix follows from one ranking of the magnitudes of all."""


Shares = ByOutliers | ByRanking


class LinearPass(ABC):
    """A method. Its fields are its settings (plain values); it holds no state and knows no model.

    A pass is a frozen, keyword-only dataclass, found by its file in `methods/`. Its fields are the
    fields of a recipe's step; the recipe schema, the command line and `whet list` are made from
    them, each with what `says` has said of it.
    Law: rows are independent where the format's codec is `rowwise`.
    Law: a weight that satisfies the pattern of a sparse format keeps its zeros.
    """

    name: ClassVar[str]
    prunes: ClassVar[bool] = False  # it chooses which weights stay; its format is sparse
    format: Format

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the statistics that `rewrite` reads, with these settings."""
        return ()

    @property
    def shares(self) -> Shares | None:
        """Return how shares follow from the whole model; None: formats alone say them."""
        return None

    def allotted(self, site: Site, stays: int) -> "LinearPass":
        """Return the settings for a site of which so many weights stay."""
        return self.fitted(site)

    def refuses(self, site: Site) -> str | None:
        """Return why a site cannot be rewritten with these settings; asked before work starts."""
        return None

    def fitted(self, site: Site) -> "LinearPass":
        """Return these settings with the format that the weight of a site will have.

        Law: known before any work, and so is the size of the result.
        """
        return replace(self, format=smaller_group(self.format, site.shape[1]))  # type: ignore[type-var]

    @abstractmethod
    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the weight that replaces this one; `role` is its site's, e.g. "mlp.down"."""
