"""A question answered: a search in its working folder, and what it has found published."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from whet.recipe.anatomy import anatomy
from whet.recipe.progress import Progress, commit
from whet.recipe.workspace import Resume, Workspace
from whet.report.added import add
from whet.search.ask import Ask, Carry, Found
from whet.search.clock import Clock
from whet.search.question import identity_of, refuse, share
from whet.search.records import records
from whet.search.run import Run
from whet.search.text import text_of
from whet.search.told import PARTS, Teller


def search(
    ask: Ask,
    out: Path,
    carry: Carry,
    *,
    resume: Resume,
    overwrite: bool,
    progress: Progress,
    stopped: Callable[[], bool],
) -> Found:
    """Find the best model within the limits; nothing stands at `out` before it is verified."""
    clock = Clock(ask.seconds)
    refuse(ask)
    with Workspace(out, resume, overwrite=overwrite) as workspace:
        text = text_of(ask.calibration, ask.folder, anatomy(ask.folder), ask.seed)
        mine = identity_of(ask, text)
        workspace.identify(mine)
        if ask.sweep is not None:
            share(ask.sweep, mine)
        commit(workspace.folder, 1)
        progress.start(PARTS, "search", within=ask.seconds)
        run = Run(ask, text, workspace.folder, carry, Teller(progress, stopped), clock)
        outcome = replace(run.result(), seconds=clock.spent)
        found = tuple(records(outcome))
        outcome.folder.replace(workspace.final)
        add(workspace.final, found)
        progress.finish()
        workspace.publish()
    return Found(out, found)
