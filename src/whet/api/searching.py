"""From a wish to a search: the source, the limits as values, and what makes folders from recipes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whet.api.compression import carried_out, default_out
from whet.base.errors import RecipeError
from whet.base.paths import local_path
from whet.formats.keeping import parse_keeping
from whet.model.opened import opened
from whet.recipe.anatomy import anatomy
from whet.recipe.pipeline import pipeline
from whet.recipe.progress import Progress, Silence
from whet.recipe.recipe import Calibration, Recipe
from whet.recipe.workspace import Resume
from whet.search.answer import search
from whet.search.ask import Ask, Found
from whet.search.limits import Limits, Objective, duration
from whet.store.folder import Folder
from whet.store.resolve import resolve
from whet.train.parallel import Team

DEFAULT_TIME_S = 600.0  # that a search takes unless said, of a small model
TIME_PER_WEIGHT_S = 3e-6  # and besides, for each weight: an hour for a billion


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for, in its own words."""

    source: str
    limits: Limits
    objective: Objective
    time: str | None
    calibration: str
    samples: int
    levels: tuple[str, ...]
    skip: tuple[str, ...]
    structures: bool
    caches: tuple[str, ...]
    recovery: bool
    target: str | None
    data: str
    seed: int
    sweep: str | None
    offline: bool

    def ask(self) -> Ask:
        """Return the question, with the source found and its words understood."""
        folder = opened(resolve(self.source, self.offline), dense=True)
        return Ask(
            folder=folder,
            limits=self.limits,
            objective=self.objective,
            seconds=_usual(folder) if self.time is None else _seconds(self.time),
            calibration=Calibration(self.calibration, self.samples),
            levels=self.levels,
            skip=self.skip,
            structures=self.structures,
            recovery=self.recovery,
            caches=tuple(parse_keeping(name) for name in self.caches),
            target=self.target,
            data=self.data,
            seed=self.seed,
            sweep=None if self.sweep is None else local_path(self.sweep),
        )


def searched(
    wish: Wish,
    out: Path | None,
    *,
    resume: Resume,
    overwrite: bool,
    progress: Progress | None,
    stopped: Callable[[], bool] | None,
) -> Found:
    """Carry out a search; the result goes to `<model>-found` if nothing is said."""
    Team.announced().alone("search")
    stop = stopped or (lambda: False)

    def carry(
        recipe: Recipe, folder: Folder, out: Path, progress: Progress, draft: Path | None = None
    ) -> None:
        carried_out(pipeline(recipe, folder), out, draft=draft, progress=progress, stopped=stop)

    return search(
        wish.ask(),
        out or default_out(wish.source, "found"),
        carry,
        resume=resume,
        overwrite=overwrite,
        progress=progress or Silence(),
        stopped=stop,
    )


def _usual(folder: Folder) -> float:
    """Return the time for a model of its size, if nothing is said [s]."""
    weights = sum(site.shape[0] * site.shape[1] for site in anatomy(folder).sites)
    return DEFAULT_TIME_S + TIME_PER_WEIGHT_S * weights


def _seconds(text: str) -> float:
    try:
        found = duration(text)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise RecipeError(f"--time {text}: not understood", "Write a time, e.g. --time 30m.")
    return found
