"""The input of linears made once for all that can share it. Needs no torch.

Each linear quantizes its input (or brings it into the form that its kernel reads); linears that
read one value in one form share that work.

Law: outputs are the same, bit for bit.
"""

from collections.abc import Callable
from dataclasses import replace

from whet.graph.ir import Graph, Linear, Op, Quantize, Value
from whet.graph.rewrites.rewrite import EXACT, Rewrite

Key = Callable[[Linear], str | None]


def by_scheme(linear: Linear) -> str | None:
    """Return what decides a linear's input in the saved folder; None if its parts differ."""
    found = {(part.scheme.activation, part.fixed) for part in linear.parts}
    if len(found) > 1:
        return None
    ((activation, fixed),) = found
    return " ".join((str(activation or "as it is"), *map(repr, fixed)))


def quantize_once(graph: Graph, key: Key = by_scheme) -> Graph:
    """Share inputs; linears may share one where their `key` is the same, None for those that may not.

    An executor whose kernels read inputs in several forms gives a key that tells them apart.
    """
    made: dict[tuple[str, str], str] = {}
    ops: list[Op] = []
    values: list[Value] = []
    for op in graph.ops:
        word = key(op) if isinstance(op, Linear) and graph.values[op.x].kind == "float" else None
        if not isinstance(op, Linear) or word is None:
            ops.append(op)
            continue
        if (op.x, word) not in made:
            value = _input(graph.values[op.x], sum(x == op.x for x, _ in made))
            made[op.x, word] = value.name
            values.append(value)
            part = op.parts[0]
            ops.append(Quantize(op.x, value.name, part.scheme.activation, part.fixed, word))
        ops.append(replace(op, x=made[op.x, word]))
    return graph.rebuilt(tuple(ops), *values)


def _input(value: Value, others: int) -> Value:
    name = f"{value.name}.input" + (f".{others + 1}" if others else "")
    return replace(value, name=name, kind="input")


QUANTIZE_ONCE = Rewrite(
    "quantize-once", "one input for all linears that can share it", EXACT, quantize_once
)
