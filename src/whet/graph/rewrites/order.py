"""Orders in which operators may run, and operators that run as one. Needs no torch."""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

from whet.graph.ir import Fused, Graph, Op, Rope, View, steps


def ordered(
    ops: Sequence[Op], rank: Callable[[int], tuple[int, ...]] | None = None
) -> tuple[Op, ...] | None:
    """Return operators so that what is read has been written; None where there is no such order.

    Of those that may run next, the one of lowest `rank`, a function of its number: the first.
    """
    rank = rank or (lambda number: (number,))
    made = {name: number for number, op in enumerate(ops) for name in op.writes}
    needs = [{made[name] for name in op.reads if name in made} for op in ops]
    after: list[list[int]] = [[] for _ in ops]
    for number, before in enumerate(needs):
        for other in before:
            after[other].append(number)
    waiting = [len(before) for before in needs]
    ready = [(rank(number), number) for number, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    found: list[Op] = []
    while ready:
        _, number = heapq.heappop(ready)
        found.append(ops[number])
        for other in after[number]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, (rank(other), other))
    return tuple(found) if len(found) == len(ops) else None


def fused(graph: Graph, groups: Iterable[Sequence[Op]]) -> Graph:
    """Return the graph with each group of operators run as one, where order allows.

    An operator is in one group at most; within a group they keep their order.
    """
    found = graph
    fitting = [group for group in groups if len(group) > 1]
    whole = _with(graph, fitting)
    if whole is not None:
        return whole
    for group in fitting:  # one of them makes a circle: leave that one out
        found = _with(found, [group]) or found
    return found


def _with(graph: Graph, groups: Sequence[Sequence[Op]]) -> Graph | None:
    readers = graph.readers()
    ends = {id(group[-1]): group for group in groups}
    members = {id(op) for group in groups for op in group}
    ops: list[Op] = []
    for op in graph.ops:
        if id(op) in ends:
            ops.append(_one(graph, ends[id(op)], readers))
        elif id(op) not in members:
            ops.append(op)
    found = ordered(ops)
    return None if found is None else graph.rebuilt(found)


def _one(graph: Graph, group: Sequence[Op], readers: Mapping[str, Sequence[Op]]) -> Fused:
    """Return a group as one operator."""
    every = tuple(step for op in group for step in steps(op))
    inside = {id(op) for op in group}
    lasting = {*graph.outputs, *_lasting(graph, every)}
    inner = {n for op in group if isinstance(op, Fused) for n in op.inner}
    for name in (name for step in every for name in step.writes if name not in lasting):
        if all(id(reader) in inside for reader in readers[name]):
            inner.add(name)
    return Fused(every, frozenset(inner))


def _lasting(graph: Graph, every: Iterable[Op]) -> set[str]:
    """Return values that need memory: those in place of others, and what the cache holds."""
    found = {name for name, value in graph.values.items() if value.kind == "cache"}
    for step in every:
        if isinstance(step, View | Rope):
            found |= {step.x, step.out}
    return found
