"""Queries, keys and values by one linear. Needs no torch.

A thread team meets once instead of three times, and the input is read once. Linears of different
schemes stay apart.

Law: outputs differ by the rounding of float32: a row's sum may be added up in another order.
"""

from whet.graph.ir import Attend, Graph, Linear, Norm, Op, Rope, Store, View
from whet.graph.rewrites.joining import kinds, together
from whet.graph.rewrites.rewrite import ROUNDING, Rewrite


def join_qkv(graph: Graph) -> Graph:
    """Join the linears that the attention of one layer reads."""
    made = graph.writers()
    layers: dict[int, dict[str, Linear]] = {}
    for op in graph.ops:
        if isinstance(op, Store | Attend):
            for name in (op.q,) if isinstance(op, Attend) else (op.k, op.v):
                linear = _source(made, name)
                if linear is not None:
                    layers.setdefault(op.layer, {})[linear.out] = linear
    groups = [
        group
        for found in layers.values()
        for group in kinds(op for op in graph.ops if isinstance(op, Linear) and op.out in found)
    ]
    return together(graph, groups)


def _source(made: dict[str, Op], name: str) -> Linear | None:
    """Return the linear that queries, keys or values come from, unless it is joined already."""
    op = made.get(name)
    while isinstance(op, Norm | Rope):
        op = made.get(op.x)
    return None if isinstance(op, View) or not isinstance(op, Linear) else op


JOIN_QKV = Rewrite("join-qkv", "queries, keys and values by one linear", ROUNDING, join_qkv)
