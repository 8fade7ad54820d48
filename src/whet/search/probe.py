"""Timing what everything is planned by: a window through a block and the head, and a linear solved."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.calibrate.statistics import Gram, Stats
from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder
from whet.model.family import find
from whet.model.source import Source
from whet.search.clock import Clock
from whet.search.effort import ForwardTimes
from whet.search.gradients import Gradients
from whet.search.schedule import Schedule
from whet.search.unit import BRIEF, PLAIN, THOROUGH, Unit, level

ROUNDS = 5  # of which the quickest counts: the first allocates, others may be disturbed
ENOUGH = 2.0  # time after which no further round begins, once there are two [s]
SOLVED = "int4-channel"  # which every linear can be written in
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
        hidden, first = embedding(ids), clock.spent
        for turn in range(ROUNDS):
            began = clock.spent
            if turn > 1 and began - first > ENOUGH:
                break
            left = block(hidden)
            reached = clock.spent
            for rows in left.flatten(0, 1).split(ROWS):
                head(rows).log_softmax(-1)
            block_s.append(reached - began)
            head_s.append(clock.spent - reached)
    return ForwardTimes(arch.layers, min(block_s), min(head_s))


@torch.no_grad()
def time_solvers(
    source: Source, units: Sequence[Unit], gradients: Gradients, schedule: Schedule
) -> None:
    """Time each solver on the first linear of the first block, before a sweep has shown more."""
    inside = [unit for unit in units if unit.layer is not None]
    if schedule.levels or not inside:
        return
    felt = gradients.block(inside[0].sites[0].layer or 0)
    site = next((site for site in inside[0].sites if site.role in felt), None)
    if site is None:
        return
    stats, weight = Stats((Gram,), site.shape[1]), source.weight(site).dense()
    stats.add(felt[site.role].x)
    for solver in (PLAIN, BRIEF, THOROUGH):
        use, began = level(SOLVED).use(alone=True, solver=solver), schedule.clock.spent
        with arithmetic(usual(site.shape[1])):
            use.fitted(site).rewrite(weight, stats, site.role, 0)
        schedule.probe(solver, weight.numel(), schedule.clock.spent - began)
