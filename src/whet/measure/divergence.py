"""Token by token: how surprised models are by a text, and how far one is from another.

Logits are had a few rows at a time, so memory does not grow with the vocabulary or the windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from whet.base.errors import NumericalError
from whet.runtime.engine import Engine

NUMBERS = 1 << 24  # logits held at a time, about


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What two models say at each of some consecutive tokens of a batch, flattened.

    `loss` and `loss_original`: surprise by the next token [nat], 0 where there is none (`scored` is
    False). `kl`: of the compressed model's next-token distribution from the original's [nat].
    `first` and `first_original`: the most likely next tokens; `p` and `p_original`: what each model
    gives to the original's first choice; `gain`: how much more probability the compressed model
    gives to the next token.
    """

    start: int
    scored: Bool[Tensor, "tokens"]
    loss: Float[Tensor, "tokens"]
    loss_original: Float[Tensor, "tokens"]
    kl: Float[Tensor, "tokens"]
    first: Int64[Tensor, "tokens"]
    first_original: Int64[Tensor, "tokens"]
    p: Float[Tensor, "tokens"]
    p_original: Float[Tensor, "tokens"]
    gain: Float[Tensor, "tokens"]


@torch.inference_mode()
def judged(
    engine: Engine, original: Engine | None, tokens: Int64[Tensor, "batch time"]
) -> Iterator[Judged]:
    """Yield what both models say, some tokens at a time; alone, a model is its own original."""
    hidden = engine.hidden(tokens).flatten(0, 1)
    reference = hidden if original is None else original.hidden(tokens).flatten(0, 1)
    following = _following(tokens)
    rows = min(max(NUMBERS // engine.vocab, 64), 1024)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        log = _log(engine, hidden[part])
        log_original = log if original is None else _log(original, reference[part])
        yield _judged(start, log, log_original, following[part])


def _following(tokens: Int64[Tensor, "batch time"]) -> Int64[Tensor, "tokens"]:
    """Return the token after each, −1 at the end of a row."""
    shifted = tokens.roll(-1, dims=1)
    shifted[:, -1] = -1
    return shifted.flatten()


def _log(engine: Engine, hidden: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens vocab"]:
    """Return log-probabilities [nat], or say whose logits are not finite."""
    found = engine.head(hidden).log_softmax(-1)
    if found.isnan().any():
        raise NumericalError(
            f"the logits of {engine.folder} are not finite",
            "Its weights or the recipe that made them are damaged: run `whet verify`.",
        )
    return found


def _judged(start: int, log: Tensor, log_original: Tensor, following: Tensor) -> Judged:
    scored = following >= 0
    place = following.clamp_min(0)[:, None]
    next_, next_original = (x.gather(1, place)[:, 0] for x in (log, log_original))
    first, first_original = log.argmax(-1), log_original.argmax(-1)
    p, p_original = (x.gather(1, first_original[:, None])[:, 0].exp() for x in (log, log_original))
    return Judged(
        start,
        scored,
        -next_ * scored,
        -next_original * scored,
        kl(log_original, log),
        first,
        first_original,
        p,
        p_original,
        (next_.exp() - next_original.exp()) * scored,
    )


def kl(
    log_p: Float[Tensor, "tokens vocab"], log_q: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, "tokens"]:
    """Return KL(p ‖ q) = Σ p·(ln p − ln q) of each row [nat].

    Law: never negative, and exactly 0 where both are equal. Law: equal to the sum in float64.
    """
    terms = log_p.exp().mul_(log_p - log_q)
    return terms.nan_to_num_(nan=0.0, posinf=torch.inf).sum(-1).clamp_min_(0)
