"""Norms, gates and sums together with the input of the linear that follows. Needs no torch.

The normalised (gated, added) row is quantized as it is made, and is not written where nothing else
reads it.

Law: outputs are the same, bit for bit.
"""

from whet.graph.ir import Activate, Add, Gate, Graph, Norm, Op, Quantize, steps
from whet.graph.rewrites.order import fused
from whet.graph.rewrites.rewrite import EXACT, Rewrite


def fuse_inputs(graph: Graph) -> Graph:
    """Fuse what makes a value with what makes a linear's input of it."""
    makers = {
        name: op
        for op in graph.ops
        for step in steps(op)
        if isinstance(step, Norm | Gate | Activate | Add)
        for name in step.writes
    }
    groups: dict[int, list[Op]] = {}
    for op in graph.ops:
        if isinstance(op, Quantize) and op.x in makers:
            maker = makers[op.x]
            groups.setdefault(id(maker), [maker]).append(op)
    return fused(graph, groups.values())


FUSE_INPUTS = Rewrite(
    "fuse-inputs",
    "norms, gates and sums with the input of the linear that follows",
    EXACT,
    fuse_inputs,
)
