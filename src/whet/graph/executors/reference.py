"""Any graph, in torch on float32: the oracle of other executors, with a cache of keys and values.

Law: `module` can be exported and compiled, and gives the same.
Law: the plain graph of a model gives what `whet.model.decoder.Model` gives: bit for bit where no
module is cut into several linears, else within the rounding of float32.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from whet.formats.activate import quantized
from whet.formats.activation import Activation
from whet.graph import ir
from whet.graph.ir import Graph, Op, steps
from whet.graph.weights import Part
from whet.model.architecture import Experts
from whet.model.attention import attend, separated
from whet.model.cache import Cache
from whet.model.decoder import looked_up
from whet.model.mlp import NONLINEARITIES, routes
from whet.model.rope import rotary
from whet.model.source import Source

Dense = Float[Tensor, "out in"]


class Reference:
    """A graph with its weights in memory, decoded to float32."""

    def __init__(self, graph: Graph, source: Source) -> None:
        self.graph, self._source = graph, source
        every = (step for op in graph.ops for step in steps(op))
        self._program = [(perform.dispatch(type(step)), step) for step in every]
        self._decoded: dict[str, Tensor] = {}
        self._matrices: dict[Op, tuple[_Matrix, ...]] = {}

    def new_cache(self) -> Cache:
        """Return an empty cache for one batch of sequences."""
        every = [step for op in self.graph.ops for step in steps(op)]
        bounds = {
            op.turns.trained
            for op in every
            if isinstance(op, ir.Rope) and op.turns.kind == "longrope"
        }
        windows = {op.layer: op.window for op in every if isinstance(op, ir.Store)}
        return Cache(tuple(windows[layer] for layer in sorted(windows)), next(iter(bounds), None))

    @torch.inference_mode()
    def step(
        self,
        tokens: Int64[Tensor, "batch time"],
        cache: Cache | None = None,
        wanted: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch wanted vocab"]:
        """Return the logits after the tokens `wanted`, which are counted from the first: all.

        The tokens follow those in the cache.
        """
        due = tokens if cache is None else cache.due(tokens)
        ahead = due.shape[1] - tokens.shape[1]
        rows = torch.tensor(range(tokens.shape[1]) if wanted is None else wanted) + ahead
        return self.performed(
            Run(self, {ir.TOKENS: due}, cache, cache.length if cache else 0, rows)
        )

    def performed(self, run: "Run") -> Float[Tensor, "batch wanted vocab"]:
        """Return the output of a step after all operators."""
        for perform_, op in self._program:
            perform_(op, run)
        (logits,) = self.graph.outputs
        return run.values[logits]

    def module(self, length: int) -> nn.Module:
        """Return the graph as a module, tokens to the logits after each; it can be exported.

        Weights and angles for sequences of up to `length` tokens are made before it is traced.
        """
        self.step(torch.zeros(1, length, dtype=torch.int64))
        return _Whole(self)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that is no linear weight."""
        return self._source.tensor(name)

    def rows(self, part: Part, ids: Int64[Tensor, "tokens"]) -> Float[Tensor, "tokens hidden"]:
        """Return rows of a table."""
        return looked_up(self._source.weight(part.site), ids)

    def matrices(self, op: Op, parts: Iterable[Part]) -> "tuple[_Matrix, ...]":
        """Return the decoded weights of an operator; parts with the same kind of input are one."""
        if op not in self._matrices:
            self._matrices[op] = tuple(_gathered(self._matrix(part) for part in parts))
        return self._matrices[op]

    def _matrix(self, part: Part) -> "_Matrix":
        key = part.site.module
        if key not in self._decoded:
            self._decoded[key] = self._source.weight(part.site).dense()
        rows = torch.cat([torch.arange(*run) for run in part.ranges()])
        weight = self._decoded[key] if part.whole else self._decoded[key][rows]
        bias = self.tensor(f"{key}.bias").float()[rows] if part.site.bias else None
        if part.gain is not None:
            weight, bias = self._folded(part, weight, bias)
        fixed = torch.tensor(part.fixed) if part.fixed else None
        return _Matrix(part.scheme.activation, fixed, weight, bias)

    def _folded(
        self, part: Part, weight: Dense, bias: Tensor | None
    ) -> tuple[Dense, Tensor | None]:
        """Return a weight and a bias that have taken over a norm's."""
        assert part.gain is not None
        module = part.gain.module
        if part.gain.bias:
            shift = functional.linear(self.tensor(f"{module}.bias").float(), weight)
            bias = shift if bias is None else bias + shift
        return weight * (self.tensor(f"{module}.weight").float() + part.gain.offset), bias


@dataclass(frozen=True, slots=True, eq=False)
class _Matrix:
    """A decoded weight, and how its input is quantized."""

    activation: Activation | None
    fixed: Tensor | None
    weight: Tensor
    bias: Tensor | None

    def times(self, x: Tensor, *, made: bool) -> Tensor:
        """Return x·Wᵀ + b; `made`: the input has been quantized."""
        if self.activation is not None and not made:
            x = quantized(x, self.activation, self.fixed)
        y = functional.linear(x, self.weight)
        return y if self.bias is None else y + self.bias

    def alike(self, other: "_Matrix") -> bool:
        """Return whether both read the same input, and have a bias or have none."""
        same = [self.fixed, self.bias is None] == [other.fixed, other.bias is None]
        return self.activation == other.activation and self.fixed is None and same


def _gathered(matrices: Iterable[_Matrix]) -> list[_Matrix]:
    """Return matrices with neighbours laid end to end that read the same input."""
    found: list[_Matrix] = []
    for one in matrices:
        if not found or not found[-1].alike(one):
            found.append(one)
            continue
        last = found.pop()
        bias = None
        if last.bias is not None and one.bias is not None:
            bias = torch.cat((last.bias, one.bias))
        found.append(_Matrix(one.activation, None, torch.cat((last.weight, one.weight)), bias))
    return found


@dataclass(slots=True)
class Run:
    """One step: its values so far, and where its tokens stand."""

    model: Reference
    values: dict[str, Tensor]
    cache: Cache | None
    start: int
    wanted: Int64[Tensor, "wanted"]
    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=lambda: {})

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.values[name] = value

    @property
    def graph(self) -> Mapping[str, ir.Value]:
        """What is known of values."""
        return self.model.graph.values


class _Whole(nn.Module):
    """A graph over whole sequences, without a cache."""

    def __init__(self, model: Reference) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        """Return the logits after each token."""
        rows = torch.arange(tokens.shape[1])
        return self.model.performed(Run(self.model, {ir.TOKENS: tokens}, None, 0, rows, {}))


@singledispatch
def perform(op: Op, run: Run) -> None:
    """Write what an operator writes."""
    raise AssertionError(f"{op.name} at token {run.start}: nothing performs it")


@perform.register
def _(op: ir.Embed, run: Run) -> None:
    tokens = run[op.tokens]
    found = run.model.rows(op.part, tokens.flatten()).unflatten(0, tokens.shape) * op.scale
    if op.positions is not None:
        first = run.start + op.offset
        found = found + run.model.tensor(op.positions)[first : first + tokens.shape[1]].float()
    run[op.out] = found


@perform.register
def _(op: ir.Norm, run: Run) -> None:
    x = run[op.x].unflatten(-1, (op.heads, -1))
    tensor = run.model.tensor
    gain = None if op.module is None else tensor(f"{op.module}.weight").float() + op.offset
    if op.kind == "layer":
        bias = None if op.module is None else tensor(f"{op.module}.bias").float()
        y = functional.layer_norm(x, x.shape[-1:], gain, bias, op.eps)
    else:
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + op.eps)
        y = y if gain is None else y * gain
    run[op.out] = y.flatten(-2)


@perform.register
def _(op: ir.Linear, run: Run) -> None:
    made = run.graph[op.x].kind == "input"
    matrices = run.model.matrices(op, op.parts)
    run[op.out] = torch.cat([m.times(run[op.x], made=made) for m in matrices], -1)


@perform.register
def _(op: ir.Quantize, run: Run) -> None:
    fixed = torch.tensor(op.fixed) if op.fixed else None
    x = run[op.x]
    run[op.out] = x if op.activation is None else quantized(x, op.activation, fixed)


@perform.register
def _(op: ir.View, run: Run) -> None:
    run[op.out] = run[op.x].narrow(-1, op.start, run.graph[op.out].width)


@perform.register
def _(op: ir.Rope, run: Run) -> None:
    x = separated(run[op.x], op.dim)
    turned = rotary(op.turns, op.dim).turn(x, run.start, run.start + x.shape[2])
    run[op.out] = turned.transpose(1, 2).flatten(2)


@perform.register
def _(op: ir.Store, run: Run) -> None:
    k, v = separated(run[op.k], op.dim), separated(run[op.v], op.dim)
    run.kept[op.cache] = (k, v) if run.cache is None else run.cache[op.layer].extend(k, v)


@perform.register
def _(op: ir.Attend, run: Run) -> None:
    k, v = run.kept[op.cache]
    run[op.out] = attend(separated(run[op.q], op.dim), k, v, op.scale, op.window, op.cap)


@perform.register
def _(op: ir.Gate, run: Run) -> None:
    run[op.out] = NONLINEARITIES[op.kind](run[op.gate]) * run[op.up]


@perform.register
def _(op: ir.Activate, run: Run) -> None:
    run[op.out] = NONLINEARITIES[op.kind](run[op.x])


@perform.register
def _(op: ir.Add, run: Run) -> None:
    run[op.out] = run[op.a] + run[op.b]


@perform.register
def _(op: ir.Cap, run: Run) -> None:
    run[op.out] = op.cap * torch.tanh(run[op.x] / op.cap)


@perform.register
def _(op: ir.Last, run: Run) -> None:
    run[op.out] = run[op.x][:, run.wanted]


@perform.register
def _(op: ir.Experts, run: Run) -> None:
    flat = run[op.x].flatten(0, 1)
    total = torch.zeros_like(flat)
    mixed = Experts(len(op.experts), op.active, 0, (), op.normalize)
    for number, tokens, share in routes(mixed, run.model.tensor(op.router), flat):
        out = _answer(op, op.experts[number], run, flat[tokens])
        total.index_add_(0, tokens, out * share[:, None])
    run[op.out] = total.view_as(run[op.x])


def _answer(op: ir.Experts, expert: ir.Expert, run: Run, x: Tensor) -> Tensor:
    """Return what one expert makes of rows."""
    act: Callable[[Tensor], Tensor] = NONLINEARITIES[op.kind]

    def times(part: Part, x: Tensor) -> Tensor:
        (matrix,) = run.model.matrices(ir.Linear("", "", (part,)), (part,))
        return matrix.times(x, made=False)

    up = times(expert.up, x)
    middle = act(up) if expert.gate is None else act(times(expert.gate, x)) * up
    return times(expert.down, middle)
