"""A question answered: a search in its working folder, and what it has found published."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from whet.calibrate.tokens import Tokens
from whet.measure.yardstick import limited_patience
from whet.recipe.anatomy import anatomy
from whet.recipe.progress import Progress, commit
from whet.recipe.workspace import Resume, Workspace
from whet.report.added import add
from whet.search.ask import Ask, Carry, Found
from whet.search.clock import Clock
from whet.search.effort import PATIENCE_FRACTION, keep_sizes, kept_sizes, plan_text
from whet.search.planner import Planner
from whet.search.probe import time_forward
from whet.search.question import identity_of, refuse, share
from whet.search.records import records
from whet.search.run import Run
from whet.search.text import calibration_of, text_of
from whet.search.told import PARTS, Teller
from whet.store.checkpoint import Checkpoint


def search(
    ask: Ask,
    out: Path,
    carry: Carry,
    *,
    resume: Resume,
    overwrite: bool,
    progress: Progress,
    stopped: Callable[[], bool],
    now: Callable[[], float] = time.monotonic,
) -> Found:
    """Find the best model within the limits; nothing stands at `out` before it is verified.

    `now` is the clock [s] that the time of the search is counted by.
    """
    clock = Clock(ask.seconds, now)
    refuse(ask)
    with (
        Workspace(out, resume, overwrite=overwrite) as workspace,
        limited_patience(PATIENCE_FRACTION * ask.seconds),
    ):
        tokens = calibration_of(ask.calibration, ask.folder, anatomy(ask.folder), ask.seed)
        mine = identity_of(ask, tokens)
        workspace.identify(mine)
        if ask.sweep is not None:
            share(ask.sweep, mine)
        commit(workspace.folder, 1)
        progress.start(PARTS, "search", within=ask.seconds)
        planner = plan_of(ask, tokens, clock, (ask.sweep or workspace.folder) / "text.json")
        planner.timeline.say = progress.note
        text = text_of(ask.calibration, ask.folder, tokens, ask.seed, planner.sizes)
        run = Run(ask, text, workspace.folder, carry, Teller(progress, stopped), planner)
        outcome = run.result()
        outcome = replace(outcome, seconds=clock.spent, phases=tuple(planner.timeline.phases))
        found = tuple(records(outcome))
        outcome.folder.replace(workspace.final)
        add(workspace.final, found)
        progress.finish()
        workspace.publish()
    return Found(out, found)


def plan_of(ask: Ask, tokens: Tokens, clock: Clock, path: Path) -> Planner:
    """Return the plan of a search that begins, or goes on with the text that it began with."""
    count, length = tokens.ids.shape
    kept = kept_sizes(path)
    if kept is None:
        times = time_forward(Checkpoint(ask.folder), tokens.ids[:1], clock)
        kept = plan_text(times, clock.left, length, count), times
        keep_sizes(path, *kept)
    sizes, times = kept
    return Planner(clock, times, sizes, count)
