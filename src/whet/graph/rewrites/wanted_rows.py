"""Work for the tokens whose logits are wanted alone: the head, and the end of the last block.

The choice of rows moves up through every operator that treats rows one by one, as far as the last
attention, whose keys and values all later tokens will see.

Law: outputs differ by the rounding of float32: fewer rows may be multiplied in another order.
"""

from dataclasses import replace

from whet.graph.ir import Graph, Last, Op, Value
from whet.graph.rewrites.rewrite import ROUNDING, Rewrite


def wanted_rows(graph: Graph) -> Graph:
    """Choose rows as early as can be."""
    narrow = _narrow(graph)
    if not narrow:
        return graph
    names: dict[str, str] = {}
    values: list[Value] = []
    ops: list[Op] = []
    for op in graph.ops:
        if isinstance(op, Last) and op.x in narrow:
            names[op.x] = op.out  # what it chose from has those rows already
    for op in graph.ops:
        if not _within(op, narrow):
            if not (isinstance(op, Last) and op.x in narrow):
                ops.append(op)
            continue
        for name in dict.fromkeys(op.reads):
            if name not in narrow and name not in names:
                names[name] = f"{name}.wanted"
                ops.append(Last(name, names[name]))
                values.append(replace(graph.values[name], name=names[name], rows="wanted"))
        ops.append(op.renamed(names))
    values += [replace(graph.values[n], rows="wanted") for n in narrow if n not in names]
    return graph.rebuilt(tuple(ops), *values)


def _narrow(graph: Graph) -> set[str]:
    """Return the values of which only wanted rows are ever used."""
    readers = graph.readers()
    found: set[str] = set()
    for op in reversed(graph.ops):
        if not op.rowwise or any(graph.values[name].rows == "wanted" for name in op.writes):
            continue
        if all(_chosen(readers[name], found) for name in op.writes):
            found |= {*op.writes}
    return found


def _chosen(readers: list[Op], narrow: set[str]) -> bool:
    return bool(readers) and all(isinstance(r, Last) or _within(r, narrow) for r in readers)


def _within(op: Op, narrow: set[str]) -> bool:
    return bool(op.writes) and all(name in narrow for name in op.writes)


WANTED_ROWS = Rewrite(
    "wanted-rows",
    "the head, and the end of the last block, for wanted tokens",
    ROUNDING,
    wanted_rows,
)
