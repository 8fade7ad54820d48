"""Where values lie: buffers that share memory when their lives do not overlap. Needs no torch.

A buffer lives from the operator that first writes it to the last that reads it. Views and values
turned in place lie in the buffer of what they come from; so does what an operator may write over an
input that nobody reads any more. Buffers are then placed, the largest first, each at the lowest
place that is free for its life (greedy by size, arXiv:2001.03288, §5); other orders are tried where
that leaves gaps.

Law: buffers whose lives overlap do not overlap.
Law: the planned bytes are at most those of buffers of their own, at least those alive at once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from whet.graph.ir import Graph, Op, Rope, Value, View, steps

ALIGNMENT = 64  # of every buffer [byte]
NUMBER = 4  # [byte]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a value lies: its first number [byte], from row to row [number], in which buffer."""

    offset: int
    stride: int
    buffer: str


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of one value, and of those that lie in it.

    `first` and `last`: the operators, by number, from the first writer to the last reader.
    """

    name: str
    nbytes: int
    first: int
    last: int
    offset: int = 0

    @property
    def stop(self) -> int:
        """The byte after the last."""
        return self.offset + self.nbytes

    def meets(self, other: "Buffer") -> bool:
        """Return whether both are alive at one operator."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Plan:
    """An arena for at most `rows` tokens in a step, of which `wanted` have logits.

    nbytes  of the arena
    alone   if every value had a buffer of its own
    alive   the most alive at once: no plan of these lives is smaller
    """

    slots: Mapping[str, Slot]
    buffers: tuple[Buffer, ...]
    rows: int
    wanted: int
    nbytes: int
    alone: int
    alive: int


@dataclass(frozen=True, slots=True)
class _Spot:
    """Columns of a buffer, before it is placed."""

    buffer: str
    start: int
    width: int

    def crosses(self, other: "_Spot") -> bool:
        apart = self.start + self.width <= other.start or other.start + other.width <= self.start
        return self.buffer == other.buffer and not apart


def plan(
    graph: Graph,
    rows: int,
    wanted: int = 1,
    sizes: Mapping[str, int] | None = None,
    *,
    inner: bool = False,
) -> Plan:
    """Place the values of a graph.

    `sizes` gives the bytes of "input" values, by name, for all their rows (unless given, as many as
    float32 numbers take); with `inner`, values that stay within fused operators have memory too.
    """
    within = {n for op in graph.ops for n in getattr(op, "inner", ())}
    values = {
        name: value
        for name, value in graph.values.items()
        if value.kind in ("float", "input") and (inner or name not in within)
    }
    given = sizes or {}
    nbytes = {n: given.get(n, _nbytes(v, rows, wanted)) for n, v in values.items()}
    spots = _spots(graph, values)
    placed = placement(_lives(graph, spots, nbytes))
    where = {buffer.name: buffer for buffer in placed}
    slots = {
        name: Slot(
            where[s.buffer].offset + NUMBER * s.start, graph.values[s.buffer].width, s.buffer
        )
        for name, s in spots.items()
    }
    made = _made(graph)
    alone = sum(_aligned(nbytes[n]) for n in values if not isinstance(made[n], View | Rope))
    return Plan(slots, placed, rows, wanted, _end(placed), alone, alive(placed))


def placement(buffers: Iterable[Buffer]) -> tuple[Buffer, ...]:
    """Return the buffers with offsets: the best of a few orders in which to place them."""
    every = tuple(buffers)
    least, found = alive(every), _placed(every, lambda b: (-b.nbytes, b.first, b.name))
    for order in (_by_place, _by_weight):
        if _end(found) == least:
            break
        found = min((found, _placed(every, order)), key=_end)
    return found


def _by_place(buffer: Buffer) -> tuple[int | str, ...]:
    return buffer.first, -buffer.nbytes, buffer.name


def _by_weight(buffer: Buffer) -> tuple[int | str, ...]:
    return -buffer.nbytes * (buffer.last - buffer.first + 1), buffer.name


def _end(buffers: Iterable[Buffer]) -> int:
    return max((buffer.stop for buffer in buffers), default=0)


def _placed(
    buffers: Iterable[Buffer], order: Callable[[Buffer], tuple[int | str, ...]]
) -> tuple[Buffer, ...]:
    """Return the buffers, each at the lowest place that those before it in `order` leave free."""
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=order):
        offset = 0
        for other in sorted((o for o in placed if o.meets(buffer)), key=lambda o: o.offset):
            if offset + buffer.nbytes <= other.offset:
                break
            offset = max(offset, other.stop)
        placed.append(replace(buffer, offset=offset))
    return tuple(placed)


def alive(buffers: Iterable[Buffer]) -> int:
    """Return the most bytes alive at one operator."""
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.first] = change.get(buffer.first, 0) + buffer.nbytes
        change[buffer.last + 1] = change.get(buffer.last + 1, 0) - buffer.nbytes
    return max(accumulate(change[number] for number in sorted(change)), default=0)


def _nbytes(value: Value, rows: int, wanted: int) -> int:
    return NUMBER * value.width * (rows if value.rows == "tokens" else min(rows, wanted))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _made(graph: Graph) -> dict[str, Op]:
    """Return the single operator that writes each value."""
    return {name: step for op in graph.ops for step in steps(op) for name in step.writes}


def _spots(graph: Graph, values: Mapping[str, Value]) -> dict[str, _Spot]:
    """Return the columns of a buffer that each value has."""
    every = [(step, step is op) for op in graph.ops for step in steps(op)]
    last = {name: number for number, (step, _) in enumerate(every) for name in step.reads}
    last |= dict.fromkeys(graph.outputs, len(every))
    spots: dict[str, _Spot] = {}
    sharing: dict[str, list[str]] = {}  # the values in each buffer
    for number, (step, single) in enumerate(every):
        for name in (n for n in step.writes if n in values):
            spot = _Spot(name, 0, values[name].width)
            if isinstance(step, View | Rope):
                source, start = spots[step.x], step.start if isinstance(step, View) else 0
                spot = _Spot(source.buffer, source.start + start, values[name].width)
            for over in _overwritable(step, values) if single else ():
                others = (n for n in sharing[spots[over].buffer] if last.get(n, -1) > number)
                if not any(spots[over].crosses(spots[other]) for other in others):
                    spot = spots[over]
            spots[name] = spot
            sharing.setdefault(spot.buffer, []).append(name)
    return spots


def _overwritable(op: Op, values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the inputs that an operator may write over, were they not read later."""
    if not op.pointwise:
        return ()
    out = replace(values[op.writes[0]], name="")
    return tuple(name for name in op.reads if replace(values[name], name="") == out)


def _lives(
    graph: Graph, spots: Mapping[str, _Spot], nbytes: Mapping[str, int]
) -> tuple[Buffer, ...]:
    """Return the buffers with their lives, not yet placed."""
    seen: dict[str, list[int]] = {}
    for number, op in enumerate(graph.ops):
        for step in steps(op):
            for name in (n for n in (*step.reads, *step.writes) if n in spots):
                seen.setdefault(spots[name].buffer, []).append(number)
    for name in graph.outputs:
        seen[spots[name].buffer].append(len(graph.ops))
    return tuple(
        Buffer(name, _aligned(nbytes[name]), min(when), max(when)) for name, when in seen.items()
    )
