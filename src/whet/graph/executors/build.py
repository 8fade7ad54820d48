"""A planned graph told to the native extension, operator by operator. Torch-free."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import UnsupportedError
from whet.formats.keeping import Keeping
from whet.graph import ir
from whet.graph.executors.angles import frequencies
from whet.graph.executors.weights import Matrix, Weights
from whet.graph.ir import Graph, Op, steps
from whet.graph.memory import ALIGNMENT, Plan, plan
from whet.graph.weights import Part
from whet.kernels.native import native
from whet.model.architecture import Rope

Spot = tuple[int, int]  # where rows lie [byte], and from one to the next [number]
Term = tuple[Matrix, int]  # a matrix, and where its input lies [byte]
FLOAT = 4  # [byte]
ONE_MATRIX = "an expert multiplies by one matrix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one step, and one sequence, may hold; `pages` are those of all sequences.

    `wanted`: rows of logits that are computed at once; more are computed piece by piece.
    """

    tokens: int
    wanted: int
    sequences: int
    longest: int
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What computes: threads, a tier of kernels, and the numbers that keys and values are kept in."""

    threads: int
    tier: str
    cache: Keeping = "bf16"


@dataclass(slots=True)
class Build:
    """A program in the making.

    `names` are those of its operators, in the order in which they are timed.
    """

    graph: Graph
    weights: Weights
    limits: Limits
    machine: Machine
    plan: Plan = field(init=False)
    pool: Any = field(init=False)
    program: Any = field(init=False)
    names: list[str] = field(default_factory=list[str])
    turns: dict[tuple[Rope, int], int] = field(default_factory=dict[tuple[Rope, int], int])
    spare: int = 0  # where inputs lie that operators do not share [byte]

    def __post_init__(self) -> None:
        """Plan memory, then tell of every operator."""
        graph, limits = self.graph, self.limits
        lasts = tuple(op.x for op in self._every() if isinstance(op, ir.Last))
        kept = replace(graph, outputs=(*graph.outputs, *lasts))  # read for each piece of the wanted
        self.plan = plan(kept, limits.tokens, limits.wanted, self._inputs(), inner=True)
        self.spare = _aligned(self.plan.nbytes)
        self.pool = self._pool()
        self.program = self._program()
        for op in self._every():
            if isinstance(op, ir.Rope) and (op.turns, op.dim) not in self.turns:
                angles = frequencies(op.turns, op.dim, 0)
                self.turns[op.turns, op.dim] = self.program.angles(angles, op.turns.gain)
                self.names.append("angles")
        for op in graph.ops:
            self._all(steps(op))
        attend = next(op for op in self._every() if isinstance(op, ir.Attend))
        self.program.seal(self.at(graph.outputs[0]), attend.heads // attend.kv_heads)

    def at(self, name: str) -> Spot:
        """Return where a value lies."""
        slot = self.plan.slots[name]
        return slot.offset, slot.stride

    def width(self, name: str) -> int:
        """Return how many numbers a row of a value has."""
        return self.graph.values[name].width

    def wanted(self, op: Op) -> bool:
        """Return whether an operator has wanted rows only."""
        return any(self.graph.values[name].rows == "wanted" for name in op.writes)

    def rows(self, op: Op) -> int:
        """Return the most rows of an operator."""
        return self.limits.wanted if self.wanted(op) else self.limits.tokens

    def _every(self) -> Iterator[Op]:
        return (step for op in self.graph.ops for step in steps(op))

    def _inputs(self) -> dict[str, int]:
        """Return the bytes of the prepared inputs that operators share."""
        found: dict[str, int] = {}
        for op in self._every():
            if isinstance(op, ir.Linear) and self.graph.values[op.x].kind == "input":
                matrix = self.weights.matrices(op.parts[0])[0]
                found[op.x] = matrix.input_bytes(self.rows(op))
        return found

    def _spare(self) -> int:
        """Return the bytes of the inputs that the greediest operator has for itself."""
        linears = [op for op in self._every() if isinstance(op, ir.Linear)]
        return max((self._own_bytes(op) for op in linears), default=0)

    def _own_bytes(self, op: ir.Linear) -> int:
        """Return the bytes of inputs that only one linear reads: its own, and those of products."""
        rows, needed = self.rows(op), 0
        if self.graph.values[op.x].kind == "float":
            found = [m for part in op.parts for m in self.weights.matrices(part)]
            needed = sum(_aligned(m.input_bytes(rows)) for m in found)
            needed += len(op.parts) * _aligned(FLOAT * self.width(op.x) * rows)
        seconds = [m for part in op.parts if (m := self.weights.second(part)) is not None]
        between = _aligned(FLOAT * rows * sum(m.cols for m in seconds))
        return needed + between + sum(_aligned(m.input_bytes(rows)) for m in seconds)

    def _pool(self) -> Any:  # noqa: ANN401 (of the extension)
        stores = [op for op in self._every() if isinstance(op, ir.Store)]
        heads, dim, limits = stores[0].heads, stores[0].dim, self.limits
        started = limits.tokens // native().PAGE + 2 * limits.sequences
        slots, kind = limits.sequences, self.machine.cache
        return native().Pool(len(stores), heads, dim, limits.pages, slots, started, kind)

    def _program(self) -> Any:  # noqa: ANN401 (of the extension)
        machine, limits = self.machine, self.limits
        return native().Program(
            machine.threads,
            machine.tier,
            limits.tokens,
            limits.wanted,
            limits.sequences,
            limits.longest,
            self.width(self.graph.outputs[0]),
            self.spare + self._spare(),
            self.pool,
        )

    def _all(self, every: Sequence[Op]) -> None:
        """Tell of operators that run as one; a few pairs are one for the extension too."""
        done: set[int] = set()
        for number, op in enumerate(every):
            if number in done:
                continue
            later = _partner(every, number)
            if isinstance(op, ir.Add) and later is not None:
                self._norm(every[later], op)
            elif isinstance(op, ir.Rope) and later is not None:
                self._store(every[later], op)
            else:
                self._one(op)
                continue
            done.add(later)

    def _one(self, op: Op) -> None:
        match op:
            case ir.View():
                return
            case ir.Embed():
                self._embed(op)
            case ir.Norm():
                self._norm(op)
            case ir.Linear():
                self._linear(op)
            case ir.Quantize():
                self._quantize(op)
            case ir.Rope():
                self._told("rope", self.at(op.x), op.heads, op.dim, self.turns[op.turns, op.dim])
            case ir.Store():
                self._store(op)
            case ir.Attend():
                self._attend(op)
            case ir.Experts():
                self._experts(op)
            case _:
                self._simple(op)

    def _told(self, what: str, *given: Any, **more: Any) -> None:  # noqa: ANN401 (any operator's)
        getattr(self.program, what)(*given, **more)
        self.names.append(what)

    def _simple(self, op: Op) -> None:
        """Tell of an operator on rows that has no weights."""
        out, width, wanted = self.at(op.writes[0]), self.width(op.writes[0]), self.wanted(op)
        match op:
            case ir.Gate():
                a, b, factor, act, kind = op.gate, op.up, 1.0, op.kind, "gate"
            case ir.Activate():
                a, b, factor, act, kind = op.x, None, 1.0, op.kind, "activate"
            case ir.Add():
                a, b, factor, act, kind = op.a, op.b, 1.0, "silu", "add"
            case ir.Cap():
                a, b, factor, act, kind = op.x, None, op.cap, "silu", "cap"
            case ir.Last():
                self._told("last", self.at(op.x), out, width)
                return
            case _:
                raise AssertionError(f"nothing performs {op.name}")
        second = None if b is None else self.at(b)
        self._told("pointwise", kind, self.at(a), second, out, width, factor, act, wanted)

    def _embed(self, op: ir.Embed) -> None:
        positions = None if op.positions is None else self.weights.positions(op.positions)
        table = self.weights.table(op.part)
        self._told("embed", self.at(op.out), table, op.scale, positions, op.offset)

    def _norm(self, op: Op, add: ir.Add | None = None) -> None:
        assert isinstance(op, ir.Norm)
        tensor, module = self.weights.tensor, op.module
        gain = None if module is None else tensor(f"{module}.weight") + np.float32(op.offset)
        bias = None if module is None or op.kind == "rms" else tensor(f"{module}.bias")
        width = self.width(op.x) // op.heads
        x, more = self.at(op.x), (None, None)
        if add is not None:
            x, more = self.at(add.a), (self.at(add.b), self.at(add.out))
        given = (op.kind, op.eps, width, op.heads, gain, bias, *more, self.wanted(op))
        self._told("norm", x, self.at(op.out), *given)

    def _store(self, op: Op, turned: ir.Rope | None = None) -> None:
        assert isinstance(op, ir.Store)
        angles = -1 if turned is None else self.turns[turned.turns, turned.dim]
        self._told("store", self.at(op.k), self.at(op.v), op.layer, angles)

    def _attend(self, op: ir.Attend) -> None:
        where = self.at(op.q), self.at(op.out), op.layer
        self._told("attend", *where, op.heads, op.scale, op.window or 0, op.cap or 0.0)

    def _quantize(self, op: ir.Quantize) -> None:
        readers = (o for o in self._every() if isinstance(o, ir.Linear) and o.x == op.out)
        matrix = self.weights.matrices(next(readers).parts[0])[0]
        self._told("prepare", self.at(op.x), self.at(op.out)[0], matrix, self.wanted(op))

    def _linear(self, op: ir.Linear) -> None:
        """Tell of the products with the first terms of all parts, then with those that add to them."""
        found, place = self._terms(op)
        found = self._seconds(op, found, place)
        starts = np.cumsum([0, *(part.rows for part in op.parts)]).tolist()
        bias = self._bias(op.parts)
        for depth in range(max(map(len, found))):
            outputs = [
                (*terms[depth], starts[number])
                for number, terms in enumerate(found)
                if depth < len(terms)
            ]
            first = bias if depth == 0 else None
            self._told("linear", self.at(op.out), outputs, first, depth > 0, self.wanted(op))

    def _terms(self, op: ir.Linear) -> tuple[list[list[Term]], int]:
        """Return the matrices of each part that read the input, and where other inputs may lie."""
        found = [self.weights.matrices(part) for part in op.parts]
        if self.graph.values[op.x].kind == "input":
            place = self.at(op.x)[0]
            return [[(matrix, place) for matrix in terms] for terms in found], self.spare
        inputs, end = self._own_inputs(op)
        told = [
            [(matrix, inputs[number, depth]) for depth, matrix in enumerate(terms)]
            for number, terms in enumerate(found)
        ]
        return told, end

    def _seconds(self, op: ir.Linear, found: list[list[Term]], place: int) -> list[list[Term]]:
        """Tell of the first factors of products side by side; return the second ones in their place.

        What lies between them has a few numbers a row.
        """
        seconds = [self.weights.second(part) for part in op.parts]
        widths = [0 if second is None else second.cols for second in seconds]
        stride, wanted = sum(widths), self.wanted(op)
        if not stride:
            return found
        starts = np.cumsum([0, *widths]).tolist()
        every = zip(found, seconds, starts, strict=False)
        outputs = [(*terms[-1], start) for terms, second, start in every if second is not None]
        self._told("linear", (place, stride), outputs, None, accumulate=False, wanted=wanted)
        told: list[list[Term]] = []
        end = place + _aligned(FLOAT * stride * self.rows(op))
        for terms, second, start in zip(found, seconds, starts, strict=False):
            if second is None:
                told.append(terms)
                continue
            self._told("prepare", (place + FLOAT * start, stride), end, second, wanted)
            told.append([*terms[:-1], (second, end)])
            end += _aligned(second.input_bytes(self.rows(op)))
        return told

    def _own_inputs(self, op: ir.Linear) -> tuple[dict[tuple[int, int], int], int]:
        """Tell of the inputs that only this linear reads; return where each matrix has its own.

        After that, where the memory is free again.
        """
        rows, wanted, place = self.rows(op), self.wanted(op), self.spare
        made: dict[object, int] = {}
        found: dict[tuple[int, int], int] = {}
        for number, part in enumerate(op.parts):
            x, form = self.at(op.x), (part.scheme.activation, part.fixed)
            if self.weights.way(part).rounded:
                if form not in made:
                    self._round(part, x, (place, part.cols), wanted=wanted)
                    made[form] = place
                    place += _aligned(FLOAT * part.cols * rows)
                x = made[form], part.cols
            for depth, matrix in enumerate(self.weights.matrices(part)):
                key = (matrix.input_key, x)
                if key not in made:
                    self._told("prepare", x, place, matrix, wanted)
                    made[key] = place
                    place += _aligned(matrix.input_bytes(rows))
                found[number, depth] = made[key]
        return found, place

    def _round(self, part: Part, x: Spot, out: Spot, *, wanted: bool) -> None:
        form = part.scheme.activation
        assert form is not None
        scale, zero = (*part.fixed, 0.0, 0.0)[:2] if part.fixed else (0.0, 0.0)
        group = form.group or part.cols
        given = (form.element, part.cols, group, form.affine, scale, zero, wanted)
        self._told("round", x, out, *given)

    def _bias(self, parts: Sequence[Part]) -> NDArray[np.float32] | None:
        """Return the biases of parts side by side, zeros for those without; None if none has one."""
        if not any(part.site.bias for part in parts):
            return None
        found: list[NDArray[np.float32]] = []
        for part in parts:
            if part.site.bias:
                whole = self.weights.tensor(f"{part.site.module}.bias")
                found += [whole[start:stop] for start, stop in part.ranges()]
            else:
                found.append(np.zeros(part.rows, np.float32))
        return np.ascontiguousarray(np.concatenate(found))

    def _experts(self, op: ir.Experts) -> None:
        def one(part: Part | None) -> Matrix | None:
            if part is None:
                return None
            (first, *more), second = self.weights.matrices(part), self.weights.second(part)
            if more or second is not None:
                where = f"{part.site.module} ({part.scheme})"
                raise UnsupportedError(f"{where}: {ONE_MATRIX}")
            return first

        experts = [(one(e.gate), one(e.up), one(e.down)) for e in op.experts]
        router = self.weights.tensor(op.router)
        given = (router, experts, op.active, op.normalize, op.kind, self.wanted(op))
        self._told("experts", self.at(op.x), self.at(op.out), *given)


def _partner(every: Sequence[Op], number: int) -> int | None:
    """Return the norm of a sum, or the write of turned keys, that is fused with it."""
    op = every[number]
    for later in range(number + 1, len(every)):
        other = every[later]
        if isinstance(op, ir.Add) and isinstance(other, ir.Norm) and other.x == op.out:
            return later if other.heads == 1 else None
        if isinstance(op, ir.Rope) and isinstance(other, ir.Store) and other.k == op.out:
            return later
    return None


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
