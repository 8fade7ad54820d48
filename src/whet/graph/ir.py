"""Operators of a decoder, and graphs of them. Needs no torch.

A *value* is a matrix with a row for each token, or for each token whose logits are wanted. Every
value is written once (a graph is in static single assignment), before it is read. What keys and
values of earlier tokens were stored is a value too, without columns, so that all order is seen.

Law: the graph of every family is sound, before and after each rewrite: `check.faults` is empty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from whet.formats.activation import Activation
from whet.graph.weights import Part
from whet.model.architecture import Nonlinearity
from whet.model.architecture import Rope as Turns

Rows = Literal["tokens", "wanted"]
Kind = Literal["float", "input", "ids", "cache"]
TOKENS, LOGITS = "tokens", "logits"


@dataclass(frozen=True, slots=True)
class Value:
    """What an operator reads or writes.

    float  float32 numbers, `width` to a row
    input  what linears with one kind of kernel read instead of `width` numbers; its bytes are theirs
    ids    token ids
    cache  that the keys and values of these rows are in the cache of a layer
    """

    name: str
    width: int
    rows: Rows = "tokens"
    kind: Kind = "float"


Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Op:
    """An operator: a frozen value; its fields named in `takes` and `gives` are values' names.

    `rowwise`: a row written depends on that row of what is read alone, not on where it stands.
    `pointwise`: a number written depends on the numbers in its place alone, so that what is written
    may take the memory of what is read.
    """

    takes: ClassVar[tuple[str, ...]] = ("x",)
    gives: ClassVar[tuple[str, ...]] = ("out",)
    rowwise: ClassVar[bool] = True
    pointwise: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that are read."""
        return tuple(getattr(self, field) for field in self.takes)

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of the values that are written."""
        return tuple(getattr(self, field) for field in self.gives)

    def renamed(self, names: Mapping[str, str]) -> "Op":
        """Return the operator with other names for some values."""
        fields = {f: getattr(self, f) for f in (*self.takes, *self.gives)}
        return replace(self, **{f: names.get(name, name) for f, name in fields.items()})

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield values with the width that each must have."""
        width = values[self.reads[0]].width
        yield from ((name, width) for name in (*self.reads, *self.writes))

    @property
    def name(self) -> str:
        """The operator in one word."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Embed(Op):
    """Rows of a table, times `scale`, plus row `offset` + position of `positions` if there is one."""

    takes = ("tokens",)
    rowwise = False

    tokens: str
    out: str
    part: Part
    scale: float = 1.0
    positions: str | None = None  # the tensor of learned positions
    offset: int = 0

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield the table's width."""
        yield self.out, self.part.cols


@dataclass(frozen=True, slots=True)
class Norm(Op):
    """Each of `heads` equal pieces of a row, normalised, times the gain (plus the bias).

    The gain is `offset` + `{module}.weight` (the bias `{module}.bias`); without a module, one.
    """

    x: str
    out: str
    kind: Literal["rms", "layer"]
    eps: float
    module: str | None
    offset: float = 0.0
    heads: int = 1


@dataclass(frozen=True, slots=True)
class Linear(Op):
    """x·Wᵀ (+ bias): the rows of `parts` one after the other are W's.

    The input is quantized first where the parts' scheme says so, unless x is an "input" value: then
    it has been.
    """

    x: str
    out: str
    parts: tuple[Part, ...]

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield inputs and outputs."""
        yield from ((self.x, part.cols) for part in self.parts)
        yield self.out, sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class Quantize(Op):
    """The input of linears, made once for all that read it.

    `activation` and `fixed` are those of the linears' schemes; without an activation the numbers
    stay what they are (a kernel may round them to what it multiplies).
    `key`: linears with the same key may share it.
    """

    x: str
    out: str
    activation: Activation | None = None
    fixed: tuple[float, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class View(Op):
    """Columns of x from `start` on: the same memory, no work."""

    x: str
    out: str
    start: int

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield that x reaches as far as the view."""
        width = values[self.x].width
        yield self.x, max(width, self.start + values[self.out].width)


@dataclass(frozen=True, slots=True)
class Rope(Op):
    """Heads turned by their position, in place: `out` is the memory of x, which nothing else reads."""

    rowwise = False

    x: str
    out: str
    heads: int
    dim: int
    turns: Turns

    @property
    def turned(self) -> int:
        """How many channels of a head are turned, the first ones."""
        return int(self.dim * self.turns.fraction)

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield the heads' width."""
        yield self.x, self.heads * self.dim
        yield self.out, self.heads * self.dim


@dataclass(frozen=True, slots=True)
class Store(Op):
    """Keys and values into the cache of a layer; with a `window`, older ones are not read again."""

    takes = ("k", "v")
    gives = ("cache",)
    rowwise = False

    k: str
    v: str
    cache: str
    layer: int
    heads: int
    dim: int
    window: int | None = None

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield the heads' width."""
        yield from ((name, self.heads * self.dim) for name in self.reads)
        yield self.cache, 0


@dataclass(frozen=True, slots=True)
class Attend(Op):
    """Causal attention over what a layer's cache holds, the tokens of this step included.

    Logits are `scale`·q·k, then with a cap c·tanh(·/c); `window` tokens are seen, itself included.
    """

    takes = ("q", "cache")
    rowwise = False

    q: str
    cache: str
    out: str
    layer: int
    heads: int
    kv_heads: int
    dim: int
    scale: float
    window: int | None = None
    cap: float | None = None

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield the heads' width."""
        yield self.q, self.heads * self.dim
        yield self.out, self.heads * self.dim


@dataclass(frozen=True, slots=True)
class Gate(Op):
    """f(gate)·up."""

    takes = ("gate", "up")
    pointwise = True

    gate: str
    up: str
    out: str
    kind: Nonlinearity


@dataclass(frozen=True, slots=True)
class Activate(Op):
    """f(x)."""

    pointwise = True

    x: str
    out: str
    kind: Nonlinearity


@dataclass(frozen=True, slots=True)
class Add(Op):
    """a + b."""

    takes = ("a", "b")
    pointwise = True

    a: str
    b: str
    out: str


@dataclass(frozen=True, slots=True)
class Cap(Op):
    """cap·tanh(x / cap)."""

    pointwise = True

    x: str
    out: str
    cap: float


@dataclass(frozen=True, slots=True)
class Last(Op):
    """The wanted rows of x, one after the other."""

    rowwise = False

    x: str
    out: str


@dataclass(frozen=True, slots=True)
class Expert:
    """The linears of one expert; without a gate, f(up) goes down."""

    up: Part
    down: Part
    gate: Part | None = None


@dataclass(frozen=True, slots=True)
class Experts(Op):
    """A mixture: the sum of each row's `active` experts by the softmax of x·Rᵀ (R, tensor `router`).

    The shares of the active ones sum to one where `normalize`; `joined`: gate and up are one matrix.
    """

    x: str
    out: str
    router: str
    experts: tuple[Expert, ...]
    active: int
    kind: Nonlinearity
    normalize: bool = True
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Fused(Op):
    """Operators run as one, in their order; `inner` values stay within and need no memory."""

    ops: tuple[Op, ...]
    inner: frozenset[str] = frozenset()

    @property
    def reads(self) -> tuple[str, ...]:
        """What comes from outside."""
        made = {name for op in self.ops for name in op.writes}
        return tuple(dict.fromkeys(n for op in self.ops for n in op.reads if n not in made))

    @property
    def writes(self) -> tuple[str, ...]:
        """What others may read."""
        return tuple(n for op in self.ops for n in op.writes if n not in self.inner)

    @property
    def name(self) -> str:
        """The operators' names, joined by a plus sign."""
        return "+".join(op.name for op in self.ops)

    def renamed(self, names: Mapping[str, str]) -> Op:
        """Return the operators with other names for some values."""
        inner = frozenset(names.get(name, name) for name in self.inner)
        return Fused(tuple(op.renamed(names) for op in self.ops), inner)

    def widths(self, values: Values) -> Iterator[tuple[str, int]]:
        """Yield what each operator asks for."""
        for op in self.ops:
            yield from op.widths(values)


def steps(op: Op) -> tuple[Op, ...]:
    """Return the operators of a fused one, or the operator alone."""
    return op.ops if isinstance(op, Fused) else (op,)


@dataclass(frozen=True, slots=True)
class Graph:
    """Operators in the order in which they run, and the values between them."""

    ops: tuple[Op, ...]
    values: Values
    inputs: tuple[str, ...] = (TOKENS,)
    outputs: tuple[str, ...] = (LOGITS,)

    def readers(self) -> dict[str, list[Op]]:
        """Return the operators that read each value, fused ones as a whole."""
        found: dict[str, list[Op]] = {name: [] for name in self.values}
        for op in self.ops:
            for name in dict.fromkeys(op.reads):
                found[name].append(op)
        return found

    def writers(self) -> dict[str, Op]:
        """Return the operator that writes each value."""
        return {name: op for op in self.ops for name in op.writes}

    def rebuilt(self, ops: tuple[Op, ...], *more: Value) -> "Graph":
        """Return a graph of other operators, with `more` values; those not in use are dropped."""
        values = {**self.values, **{value.name: value for value in more}}
        used = {n for op in ops for step in steps(op) for n in (*step.reads, *step.writes)}
        kept = {name: value for name, value in values.items() if name in used}
        return replace(self, ops=ops, values=kept)
