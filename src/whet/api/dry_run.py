"""What a run would do and need, found without doing it."""

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
    need = trial(bound, _windows(bound), memory_limit)
    refuse_misfits(need, out)
    small, stages = draft_of(bound), tuple(stage_records(bound))
    drafted = 0 if small is None else small.weights_bytes
    return Preview(bound, out, bound.weights_bytes, need, stages, drafted)


def _windows(bound: Pipeline) -> tuple[int, int]:
    """Return how many windows of text a run has; no text is read where statistics need none."""
    if bound.needs_statistics:
        samples, length = tokens_of(bound).ids.shape
        return samples, length
    source = bound.recipe.calibration.source
    if not source.startswith("hf:"):
        text_files(source)  # so that a text that is not there is told now
    return windows_of(bound)
