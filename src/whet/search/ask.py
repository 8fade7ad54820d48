"""What a search is asked for, and the values that come out of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from whet.base.record import Record
from whet.formats.keeping import Keeping
from whet.recipe.progress import Progress
from whet.recipe.recipe import Calibration, Recipe
from whet.search.limits import Limits, Objective
from whet.search.unit import TABLES
from whet.store.folder import Folder

Told = Callable[[float, str], None]  # (share that is done, what is under way)


@runtime_checkable
class Carry(Protocol):
    """What makes a folder from a recipe: plan, execute, verify, publish."""

    def __call__(
        self,
        recipe: Recipe,
        folder: Folder,
        out: Path,
        progress: Progress,
        draft: Path | None = None,
    ) -> None:
        """Leave a verified folder at `out`; `draft` is the recipe's draft, where it was made before."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A model, the limits, and how much may be tried.

    `levels` and `tables` are the formats that linears and embeddings are offered, by default those
    for a model of that size; `skip` names sites that stay as they are; `seconds` is the time that
    the search may take, the last compression included; `structures` says whether smaller shapes are
    tried too; `caches` what keys and values may be kept in, by default as usual, and in fewer bits
    where speed or memory is limited; `recovery` says whether the result is trained in the time that
    is left; `data` is what the result is measured on; `sweep` a folder that keeps what shapes cost
    for other searches of the same model.
    """

    folder: Folder
    limits: Limits
    objective: Objective = "quality"
    seconds: float = 1800.0
    calibration: Calibration = field(default_factory=Calibration)
    levels: Sequence[str] = ()
    tables: Sequence[str] = TABLES
    skip: Sequence[str] = ()
    structures: bool = True
    caches: Sequence[Keeping] = ()
    recovery: bool = True
    target: str | None = None
    data: str = "builtin"
    seed: int = 0
    sweep: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The folder that a search has published, and what it has found out."""

    path: Path
    records: tuple[Record, ...]
