"""Token by token: how surprised models are by a text, and how far one is from another. Torch-free.

Logits are had a few rows at a time, so memory does not grow with the vocabulary or the windows;
what follows from them is computed in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import NumericalError
from whet.runtime.engine import Engine
from whet.runtime.executor import Ids, Logits

NUMBERS = 1 << 24  # logits held at a time, about
BLOCK = 1 << 19  # of which so many are widened to float64 at a time, about
Values = NDArray[np.float64]
Choices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What two models say at each of some consecutive tokens of a sequence.

    `loss` and `loss_original`: surprise by the next token [nat], 0 where there is none (`scored` is
    False). `kl`: of the compressed model's next-token distribution from the original's [nat].
    `first` and `first_original`: the most likely next tokens; `p` and `p_original`: what each model
    gives to the original's first choice; `gain`: how much more probability the compressed model
    gives to the next token.
    """

    start: int
    scored: NDArray[np.bool_]
    loss: Values
    loss_original: Values
    kl: Values
    first: Choices
    first_original: Choices
    p: Values
    p_original: Values
    gain: Values


def judged(engine: Engine, original: Engine | None, tokens: Ids) -> Iterator[Judged]:
    """Yield what both models say, some tokens at a time; alone, a model is its own original."""
    following = np.append(tokens[1:], -1)
    size = min(max(NUMBERS // engine.vocab, 64), 1024)
    theirs = original.pieces(tokens, size) if original else None
    start = 0
    for mine in engine.pieces(tokens, size):
        reference = next(theirs) if theirs is not None else mine
        step = max(1, BLOCK // engine.vocab)
        for first in range(0, len(mine), step):
            part = slice(first, first + step)
            log = _log(engine, mine[part])
            log_original = log if reference is mine else _log(original or engine, reference[part])
            there = start + first
            yield _judged(there, log, log_original, following[there : there + len(log)])
        start += len(mine)


def _log(engine: Engine, logits: Logits) -> Values:
    """Return log-probabilities [nat], or say whose logits are not finite."""
    found = log_softmax(logits)
    if np.isnan(found).any():
        raise NumericalError(
            f"the logits of {engine.folder} are not finite",
            "Its weights or the recipe that made them are damaged: run `whet verify`.",
        )
    return found


def log_softmax(logits: Logits) -> Values:
    """Return ln softmax of each row, in float64."""
    found = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found -= found.max(-1, keepdims=True)
        found -= np.log(np.exp(found).sum(-1, keepdims=True))
    return found


def _judged(start: int, log: Values, log_original: Values, following: Ids) -> Judged:
    scored = following >= 0
    next_, next_original = (_at(x, np.maximum(following, 0)) for x in (log, log_original))
    first, first_original = log.argmax(-1), log_original.argmax(-1)
    p, p_original = (np.exp(_at(x, first_original)) for x in (log, log_original))
    return Judged(
        start,
        scored,
        np.where(scored, -next_, 0.0),
        np.where(scored, -next_original, 0.0),
        kl(log_original, log),
        first,
        first_original,
        p,
        p_original,
        np.where(scored, np.exp(next_) - np.exp(next_original), 0.0),
    )


def _at(values: Values, places: Choices) -> Values:
    """Return one number of each row."""
    return np.take_along_axis(values, places[:, None], 1)[:, 0]


def kl(log_p: Values, log_q: Values) -> Values:
    """Return KL(p ‖ q) = Σ p·(ln p − ln q) of each row [nat].

    Law: never negative, and exactly 0 where both are equal.
    """
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p)
        terms *= log_p - log_q
    if not np.isfinite(terms).all():
        terms = np.nan_to_num(terms, copy=False, nan=0.0, posinf=np.inf)
    return np.maximum(terms.sum(-1), 0.0)
