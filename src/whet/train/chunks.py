"""Losses over a vocabulary without ever holding the logits of all tokens."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from whet.train.loss import Objective, Teaching

BOUND = 1 << 23  # logits of one model that are held at once [1]
Head = Callable[[Tensor], Tensor]  # hidden [tokens hidden] -> logits [tokens vocab]
Taught = Callable[[slice], Teaching | None]  # some tokens -> what the teacher says of them


def over_tokens(
    hidden: Float[Tensor, "tokens hidden"],
    head: Head,
    taught: Taught,
    targets: Int64[Tensor, "tokens"],
    objective: Objective,
    vocab: int,
    *,
    counted: Bool[Tensor, "tokens"] | None = None,
    bound: int = BOUND,
) -> Float[Tensor, ""]:
    """Return the mean loss over the tokens that count.

    Logits, the teacher's too, are made for as many tokens at a time as `bound` allows, and made
    again on the way back.
    Law: the size of the pieces changes nothing but rounding errors.
    """
    step = max(1, bound // vocab)
    total = hidden.new_zeros(())
    for start in range(0, len(hidden), step):
        part = slice(start, start + step)

        def summed(some: Tensor, part: slice = part) -> Tensor:
            losses = objective.of(head(some), taught(part), targets[part])
            return (losses if counted is None else losses * counted[part]).sum()

        if step >= len(hidden) or not torch.is_grad_enabled():
            total = total + summed(hidden[part])
        else:
            total = total + checkpoint(summed, hidden[part], use_reentrant=False)
    return total / (len(hidden) if counted is None else counted.sum().clamp(min=1))
