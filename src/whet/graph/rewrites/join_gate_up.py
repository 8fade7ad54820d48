"""The two linears before a gate as one, those of experts too. Needs no torch.

Law: outputs differ by the rounding of float32: a row's sum may be added up in another order.
"""

from dataclasses import replace

from whet.graph.ir import Expert, Experts, Gate, Graph, Linear
from whet.graph.rewrites.joining import alike, kinds, together
from whet.graph.rewrites.rewrite import ROUNDING, Rewrite


def join_gate_up(graph: Graph) -> Graph:
    """Join the linears that each gate reads."""
    made = graph.writers()
    groups: list[tuple[Linear, ...]] = []
    for op in graph.ops:
        if isinstance(op, Gate):
            first, second = made[op.gate], made[op.up]
            if isinstance(first, Linear) and isinstance(second, Linear):
                groups += kinds((first, second))
    ops = tuple(_joined(op) if isinstance(op, Experts) else op for op in graph.ops)
    return together(graph.rebuilt(ops), groups)


def _joined(op: Experts) -> Experts:
    return replace(op, joined=all(_fits(expert) for expert in op.experts))


def _fits(expert: Expert) -> bool:
    return expert.gate is not None and alike((expert.gate, expert.up))


JOIN_GATE_UP = Rewrite("join-gate-up", "gate and up by one linear", ROUNDING, join_gate_up)
