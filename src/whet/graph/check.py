"""Whether a graph is sound. Needs no torch."""

from collections import Counter
from collections.abc import Iterator

from whet.graph.ir import Graph, Last, Op, Rope, Values, steps


def faults(graph: Graph) -> Iterator[str]:
    """Yield what is wrong with a graph: order, widths, rows, writes in place."""
    known = set(graph.inputs)
    for op in graph.ops:
        for step in steps(op):
            missing = [n for n in (*step.reads, *step.writes) if n not in graph.values]
            if missing:
                yield f"{step.name}: no value {', '.join(missing)}"
                return
            yield from (
                f"{step.name} reads {n} before it is written" for n in step.reads if n not in known
            )
            yield from (f"{step.name} writes {n} again" for n in step.writes if n in known)
            known |= {*step.writes}
            yield from _misfits(step, graph.values)
    yield from (f"nothing writes {name}" for name in graph.outputs if name not in known)
    yield from _torn(graph)


def _misfits(op: Op, values: Values) -> Iterator[str]:
    """Yield values of an operator whose width or rows are not what it needs."""
    for name, width in op.widths(values):
        if values[name].width != width:
            yield f"{op.name}: {name} has width {values[name].width}, expected {width}"
    read = {values[name].rows for name in op.reads}
    rows: set[str] = {"wanted"} if isinstance(op, Last) else {*read}
    if len(read) > 1 or any(values[name].rows not in rows for name in op.writes):
        yield f"{op.name}: rows of {', '.join((*op.reads, *op.writes))} do not agree"


def _torn(graph: Graph) -> Iterator[str]:
    """Yield values that are read although an operator has turned them in place."""
    every = [step for op in graph.ops for step in steps(op)]
    count = Counter(name for op in every for name in op.reads)
    for op in every:
        if isinstance(op, Rope) and count[op.x] > 1:
            yield f"rope: {op.x} is turned in place but read elsewhere"
