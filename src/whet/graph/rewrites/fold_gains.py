"""The gains of norms into the linears that read them: W·diag(g) instead of W·(g·x).

Only where every reader is a linear of float32 numbers. Refused elsewhere, for what it would cost:
codes would have to be made anew, by another rule than the method that chose them; bf16 and f16
numbers would be rounded a second time; a table that is also looked up would be needed twice; a
quantized input must see the gain, whose scale was fitted with it.

Law: outputs differ by the rounding of float32. Law: what is refused is left as it was.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from whet.formats.spec import Float
from whet.graph.ir import Graph, Linear, Norm, Op
from whet.graph.rewrites.rewrite import ROUNDING, Rewrite
from whet.graph.weights import Gain, Part


def fold_gains(graph: Graph) -> Graph:
    """Fold every gain that may be."""
    readers = graph.readers()
    gains: dict[str, Gain] = {}
    for op in graph.ops:
        if isinstance(op, Norm) and op.module and refusal(readers[op.out]) is None:
            gains[op.out] = Gain(op.module, op.offset, op.kind == "layer")
    return graph.rebuilt(tuple(_folded(op, gains) for op in graph.ops))


def refusals(graph: Graph) -> Counter[str]:
    """Return why gains are not folded, and how many."""
    readers = graph.readers()
    norms = [op for op in graph.ops if isinstance(op, Norm) and op.module]
    found = (refusal(readers[norm.out]) for norm in norms)
    return Counter(reason for reason in found if reason)


def refusal(readers: Sequence[Op]) -> str | None:
    """Return why a norm with these readers keeps its gain, or None."""
    for op in readers:
        if not isinstance(op, Linear):
            return f"{op.name} reads the norm too"
        for part in op.parts:
            if reason := _unfit(part):
                return reason
    return None


def _unfit(part: Part) -> str | None:
    if part.scheme.activation is not None:
        return "the quantized input must see the gain"
    if not isinstance(part.scheme.format, Float):
        return f"{part.scheme.format} codes would have to be made anew"
    if part.scheme.format.dtype != "F32":
        return f"{part.scheme.format} numbers would be rounded a second time"
    if part.site.role == "embed":
        return "the table is looked up too, and would be needed twice"
    return None


def _folded(op: Op, gains: dict[str, Gain]) -> Op:
    if isinstance(op, Norm) and op.out in gains:
        return replace(op, module=None, offset=0.0)
    if isinstance(op, Linear) and op.x in gains:
        return replace(op, parts=tuple(replace(part, gain=gains[op.x]) for part in op.parts))
    return op


FOLD_GAINS = Rewrite("fold-gains", "gains of norms into float32 weights", ROUNDING, fold_gains)
