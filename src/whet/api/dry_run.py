"""What a run would do and need, found without doing it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from whet.api.compression import draft_of, tokens_of, windows_of
from whet.base.record import Record
from whet.calibrate.texts import text_files
from whet.recipe.estimate import Estimate, refuse_misfits
from whet.recipe.evidence import stage_records
from whet.recipe.pipeline import Pipeline
from whet.recipe.trial import trial


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, the exact size of its weights, and predictions of the rest."""

    plan: Pipeline
    out: Path
    weights_bytes: int  # exact [byte]
    need: Estimate
    stages: tuple[Record, ...] = ()  # what each leaves, where a pass works on the whole model
    draft_bytes: int = 0  # exact, of the smaller model inside; 0: there is none [byte]


def previewed(bound: Pipeline, out: Path, memory_limit: int | None = None) -> Preview:
    """Return what carrying out a plan would need; raise if it cannot fit."""
    need = _tried(bound, memory_limit)
    refuse_misfits(need, out)
    small, stages = draft_of(bound), tuple(stage_records(bound))
    drafted = 0 if small is None else small.weights_bytes
    return Preview(bound, out, bound.weights_bytes, need, stages, drafted)


def _tried(bound: Pipeline, memory_limit: int | None) -> Estimate:
    """Return what a trial finds; the text is read meanwhile, and seldom holds less than was asked for.

    No text is read where statistics need none.
    """
    source, asked = bound.recipe.calibration.source, windows_of(bound)
    if not source.startswith("hf:"):
        text_files(source)  # so that a text that is not there is told now
    if not bound.needs_statistics:
        return trial(bound, asked, memory_limit)
    with ThreadPoolExecutor(1) as beside:
        tried = beside.submit(trial, bound, asked, memory_limit)
        samples, length = tokens_of(bound).ids.shape
        found = tried.result()
    return found if asked == (samples, length) else trial(bound, (samples, length), memory_limit)
