"""Training back what rounding has lost, in the time that is left: how much of it, and of what."""

from dataclasses import dataclass

from whet.base.machine import free_memory
from whet.methods.distill.qat import Qat

SPEED = 1.2e11  # operations of training in a second
LEARNING, TEACHING = 6, 2  # operations for a weight and a token: of the student, of the original
LEAST, MOST = 60_000, 3_000_000  # less is not worth beginning, more teaches little [token]
CODES = 400_000  # from here on codes are trained too: at first that makes a model worse [token]
TRAINING_BYTES = 16  # of memory for each weight: the student and its gradients, the original
BATCH = 4  # windows a step: short trainings need many


@dataclass(frozen=True, slots=True)
class Recovery:
    """What training has made of a folder's KL divergence [nat per token]; `kept` if it was worth it."""

    tokens: int
    before: float
    after: float
    kept: bool


def affordable(seconds: float, weights: int, operations: int = LEARNING) -> int:
    """Return how many tokens a model of so many weights can be trained on in a time, by ten thousand."""
    return int(max(0.0, seconds) * SPEED / (operations * weights)) // 10_000 * 10_000


def fits_memory(weights: int) -> bool:
    """Return whether a model of so many weights can be trained in the memory that is free."""
    return TRAINING_BYTES * weights <= free_memory()


def recovery(seconds: float, weights: int) -> Qat | None:
    """Return what trains a compressed model as far as time allows; None if not far enough."""
    tokens = min(affordable(seconds, weights, LEARNING + TEACHING), MOST)
    if tokens < LEAST:
        return None
    return Qat(tokens=tokens, codes=tokens >= CODES, batch=BATCH)
