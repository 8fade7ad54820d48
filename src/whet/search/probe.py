"""Timing one window of text through one block and the head: the unit that everything is planned by."""

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder
from whet.model.family import find
from whet.model.source import Source
from whet.search.clock import Clock
from whet.search.effort import ForwardTimes

ROUNDS = 2  # of which the quickest counts: the first one allocates
ROWS = 256  # tokens whose predictions are held at a time


@torch.no_grad()
def time_forward(source: Source, ids: Int64[Tensor, "one time"], clock: Clock) -> ForwardTimes:
    """Return the times of one window through the first block and through the head."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    embedding = decoder.embedding(source, family, arch)
    block = decoder.block(source, family, arch, 0)
    head = decoder.head(source, family, arch, embedding if arch.tied else None)
    block_s, head_s = [], []
    with arithmetic(usual(arch.hidden)):
        hidden = embedding(ids)
        for _ in range(ROUNDS):
            began = clock.spent
            left = block(hidden)
            reached = clock.spent
            for rows in left.flatten(0, 1).split(ROWS):
                head(rows).log_softmax(-1)
            block_s.append(reached - began)
            head_s.append(clock.spent - reached)
    return ForwardTimes(arch.layers, min(block_s), min(head_s))
