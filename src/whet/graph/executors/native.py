"""Any graph by the native extension: operators over one arena, weights in their kernels' layouts.

Torch-free. The graph is rewritten, planned and told to the extension; after that a step is one call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whet.graph import ir
from whet.graph.executors.angles import frequencies, regime
from whet.graph.executors.build import Build, Limits, Machine
from whet.graph.executors.weights import Weights
from whet.graph.ir import Graph, Op, steps
from whet.graph.rewrites import PIPELINE
from whet.graph.rewrites.fold_gains import FOLD_GAINS
from whet.graph.rewrites.quantize_once import QUANTIZE_ONCE, quantize_once
from whet.graph.weights import Part

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]
Piece = tuple[int, int, Ids, int]  # tokens of a sequence, position of the first, pages, slot


class Native:
    """A graph with its weights in memory.

    Law: a token's logits do not depend on the other sequences of its step, bit for bit.
    Law: equal to the reference within what rounding inputs to the kernels' numbers costs.
    """

    def __init__(self, graph: Graph, weights: Weights, limits: Limits, machine: Machine) -> None:
        self.limits, self.machine, self.weights = limits, machine, weights
        self.graph = staged(rewritten(graph, weights))
        build = Build(self.graph, weights, limits, machine)
        self.plan, self.pool, self.program = build.plan, build.pool, build.program
        self.names = tuple(build.names)
        self._turns, self._regimes = build.turns, dict.fromkeys(build.turns, 0)

    def step(self, tokens: Ids, pieces: Sequence[Piece], wanted: Ids, length: int) -> Logits:
        """Return the logits after the `wanted` rows.

        `length` [token] is the one that angles are made for, where they depend on it.
        """
        for (rope, dim), number in self._turns.items():
            now = regime(rope, length)
            if now != self._regimes[rope, dim]:
                self._regimes[rope, dim] = now
                self.program.set_angles(number, frequencies(rope, dim, length))
        return self.program.step(tokens, list(pieces), wanted)

    @property
    def stretched(self) -> bool:
        """Whether angles depend on a sequence's length, so that each needs steps of its own."""
        return any(rope.kind in ("dynamic", "longrope") for rope, _ in self._turns)

    @property
    def bound(self) -> int | None:
        """The length beyond which all positions are turned anew [token]."""
        kinds = (rope for rope, _ in self._turns)
        return next((rope.trained for rope in kinds if rope.kind == "longrope"), None)


def parts(graph: Graph) -> Iterator[Part]:
    """Yield what a graph multiplies by, each once."""
    seen: set[Part] = set()
    for op in (step for whole in graph.ops for step in steps(whole)):
        found: tuple[Part | None, ...] = op.parts if isinstance(op, ir.Linear) else ()
        if isinstance(op, ir.Experts):
            found = tuple(part for e in op.experts for part in (e.gate, e.up, e.down))
        for part in found:
            if part is not None and part not in seen:
                seen.add(part)
                yield part


def joined(graph: Graph) -> Graph:
    """Return the graph with linears joined: what it multiplies by then, it does to the end."""
    for rewrite in PIPELINE[: PIPELINE.index(FOLD_GAINS)]:
        graph = rewrite(graph)
    return graph


def rewritten(graph: Graph, weights: Weights) -> Graph:
    """Return the graph after all rewrites; inputs are shared where the kernels take the same.

    Gains stay with the norms: there they cost nothing, and no weight is rounded anew.
    """
    once = replace(QUANTIZE_ONCE, apply=partial(quantize_once, key=partial(input_key, weights)))
    for rewrite in PIPELINE:
        if rewrite is not FOLD_GAINS:
            graph = (once if rewrite is QUANTIZE_ONCE else rewrite)(graph)
    return graph


def input_key(weights: Weights, linear: ir.Linear) -> str | None:
    """Return what tells inputs apart: that of all the matrices, or None where they differ."""
    if any(weights.way(part).rounded for part in linear.parts):
        return None
    keys = {m.input_key for part in linear.parts for m in weights.matrices(part)}
    return str(keys.pop()) if len(keys) == 1 else None


def staged(graph: Graph) -> Graph:
    """Return the graph with what is done for all tokens before what is done for wanted ones."""

    def late(op: Op) -> bool:
        return any(graph.values[name].rows == "wanted" for name in op.writes)

    ops = (*(op for op in graph.ops if not late(op)), *(op for op in graph.ops if late(op)))
    return replace(graph, ops=ops)
