"""A recipe is data: an ordered list of steps, what to calibrate on, and a seed."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from whet.calibrate.statistics import Statistic
from whet.formats.spec import Format
from whet.model.site import Site
from whet.passes.block_pass import BlockPass
from whet.passes.linear_pass import LinearPass
from whet.passes.model_pass import ModelPass

Precision = Literal["auto", "exact", "mixed", "fast"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the statistics are gathered on: `samples` windows of `length` tokens of `source`."""

    source: str = "builtin"
    samples: int = 128
    length: int = 512


@dataclass(frozen=True, slots=True)
class Allocation:
    """Mixed precision: each linear in a block gets one of `formats`, so that all have `bits` together.

    The embedding and the head get one of `tables`; without any, what their step says.

    `bits` is the size ÷ the number of the weights that the steps round, embedding and head included
    [bit per weight]. Which linears get more follows from their sensitivity, measured on `samples`
    windows of at most `length` tokens of the calibration text.
    """

    bits: float
    formats: tuple[Format, ...]
    tables: tuple[Format, ...] = ()
    samples: int = 8
    length: int = 256

    def formats_of(self, site: Site) -> tuple[Format, ...]:
        """Return the formats that a site may get; none where its step's format holds."""
        return self.tables if site.layer is None else self.formats


@dataclass(frozen=True, slots=True)
class Step:
    """Apply one pass to the sites that `where` selects.

    A pattern is a glob over a site's role ("mlp.down"), its role with its layer ("layers.3.mlp.*"),
    or its module's name in the checkpoint ("*.q_proj"); or one of the words `blocks` (every linear
    inside a block), `embed`, `head`. A pass over the whole model has no use for patterns.
    """

    use: LinearPass | BlockPass | ModelPass
    where: tuple[str, ...] = ("blocks",)

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the statistics that the pass is given; one over the whole model gathers its own."""
        return () if isinstance(self.use, ModelPass) else self.use.needs

    def selects(self, site: Site) -> bool:
        """Return whether this step is to rewrite a site."""
        return any(matches(pattern, site) for pattern in self.where)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order, over the sites that no pattern of `skip` names.

    `precision` is the arithmetic of calibration: `exact` float32; `mixed`, in which statistics are
    sums over inputs rounded to 8 bits, and the uncompressed model is followed with weights and inputs
    in 8 bits; or `fast`, in which moreover other factors of matrix products are rounded to bfloat16
    and added up in float32. `auto` is `fast` for wide models on processors that
    multiply bfloat16, `mixed` on those that multiply 8-bit integers; a plan says which it was.
    `draft` are the steps that make, from the same source, a smaller model that guesses for this one
    (`whet.store.folder.DRAFT`).
    `allocation` replaces the formats of steps over linears in blocks (`whet.recipe.allocation`).
    """

    name: str
    steps: tuple[Step, ...]
    description: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    skip: tuple[str, ...] = ()
    precision: Precision = "auto"
    seed: int = 0
    draft: tuple[Step, ...] = ()
    allocation: Allocation | None = None

    def skips(self, site: Site) -> str | None:
        """Return the pattern that excludes a site, if one does."""
        return next((pattern for pattern in self.skip if matches(pattern, site)), None)

    def keeping_ends(self) -> "Recipe":
        """Return the recipe that leaves embedding and head as they are."""
        return replace(self, skip=tuple(dict.fromkeys((*self.skip, "embed", "head"))))

    @property
    def drafts(self) -> "Recipe | None":
        """The recipe of the smaller model that guesses for this one, if there is one."""
        if not self.draft:
            return None
        return replace(
            self, name="draft", description="", steps=self.draft, draft=(), skip=(), allocation=None
        )


def matches(pattern: str, site: Site) -> bool:
    """Return whether a pattern names a site."""
    if pattern == "blocks":
        return site.layer is not None
    placed = site.role if site.layer is None else f"layers.{site.layer}.{site.role}"
    return any(fnmatchcase(name, pattern) for name in (site.role, placed, site.module))
