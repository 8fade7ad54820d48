"""What a run would do and need, found without doing it."""

from dataclasses import dataclass
from pathlib import Path

from whet.api.compression import tokens_of
from whet.recipe.estimate import Estimate, refuse_misfits
from whet.recipe.plan import Plan
from whet.recipe.trial import trial


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, the exact size of its weights, and predictions of the rest."""

    plan: Plan
    out: Path
    weights_bytes: int  # exact [byte]
    need: Estimate


def previewed(bound: Plan, out: Path) -> Preview:
    """Return what carrying out a plan would need; raise if it cannot fit."""
    samples, length = tokens_of(bound).ids.shape
    need = trial(bound, (samples, length))
    refuse_misfits(need, out)
    return Preview(bound, out, bound.weights_bytes, need)
