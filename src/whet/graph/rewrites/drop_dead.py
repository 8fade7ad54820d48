"""Work that changes nothing left out: what nobody reads, and choices of all there is.

Law: outputs are the same, bit for bit. Law: no operator is left whose outputs are not read.
"""

from whet.graph.ir import Fused, Graph, Last, Op, View
from whet.graph.rewrites.rewrite import EXACT, Rewrite


def drop_dead(graph: Graph) -> Graph:
    """Leave out dead operators and those that return what they read."""
    names: dict[str, str] = {}
    ops: list[Op] = []
    for op in graph.ops:
        here = _single(op).renamed(names)
        if isinstance(here, View | Last) and _idle(graph, here):
            names[here.out] = here.x
        else:
            ops.append(here)
    return _living(graph.rebuilt(tuple(ops)))


def _single(op: Op) -> Op:
    """Return the operator that is fused with no other."""
    return op.ops[0] if isinstance(op, Fused) and len(op.ops) == 1 else op


def _idle(graph: Graph, op: View | Last) -> bool:
    """Return whether an operator chooses all of what it reads."""
    x, out = graph.values[op.x], graph.values[op.out]
    return (x.width, x.rows) == (out.width, out.rows) and op.out not in graph.outputs


def _living(graph: Graph) -> Graph:
    """Return the operators that outputs need."""
    needed = {*graph.outputs}
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if needed & {*op.writes}:
            ops.append(op)
            needed |= {*op.reads}
    return graph.rebuilt(tuple(reversed(ops)))


DROP_DEAD = Rewrite("drop-dead", "without work that changes nothing", EXACT, drop_dead)
