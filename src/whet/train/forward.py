"""A forward pass that trains: what leaves each block, in mixed precision, kept or computed again."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from whet.kernels.arithmetic import has_fast
from whet.model.block import Block
from whet.model.decoder import Model

WIDE = 128  # hidden channels from which bfloat16 is faster than it costs to convert


@contextmanager
def mixed(hidden: int) -> Generator[None]:
    """Multiply in bfloat16 where the processor does so itself and the model is wide enough.

    Parameters, their gradients, norms and losses stay in float32.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast() and hidden >= WIDE):
        yield


def states(
    model: Model, ids: Int64[Tensor, "batch time"], *, thrifty: bool = False
) -> list[Float[Tensor, "batch time hidden"]]:
    """Return what leaves each block, the embedding first; the last is what the head reads.

    `thrifty` keeps only that and computes what is inside blocks again (arXiv:1604.06174).
    Law: `thrifty` or not gives the same numbers.
    """
    return model.states(ids, _twice if thrifty and torch.is_grad_enabled() else None)


def _twice(block: Block, hidden: Tensor) -> Tensor:
    return checkpoint(block, hidden, use_reentrant=False)
