"""Several linears that read one value, as one. Needs no torch."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from whet.graph.ir import Graph, Linear, Op, Value, View
from whet.graph.weights import Part, joined


def alike(parts: Iterable[Part]) -> bool:
    """Return whether one kernel can multiply by all: one scheme, one input."""
    kinds = {(part.scheme, part.fixed, part.gain, part.cols) for part in parts}
    return len(kinds) == 1


def kinds(linears: Iterable[Linear]) -> list[tuple[Linear, ...]]:
    """Return linears grouped by what they read and by their scheme; groups of two and more."""
    found: dict[object, list[Linear]] = {}
    for linear in linears:
        if alike(linear.parts):
            part = linear.parts[0]
            key = (linear.x, part.scheme, part.fixed, part.gain)
            found.setdefault(key, []).append(linear)
    return [tuple(group) for group in found.values() if len(group) > 1]


def together(graph: Graph, groups: Iterable[Sequence[Linear]]) -> Graph:
    """Return the graph with each group as one linear, at the place of its first; outputs are views.

    Law: joined weights have the rows of all, one after the other.
    """
    first = {id(group[0]): group for group in groups}
    members = {id(linear) for group in first.values() for linear in group}
    ops: list[Op] = []
    values: list[Value] = []
    for op in graph.ops:
        if id(op) in first:
            group = first[id(op)]
            widths = [graph.values[linear.out].width for linear in group]
            like = graph.values[group[0].out]
            value = Value(_name([linear.out for linear in group]), sum(widths), like.rows)
            values.append(value)
            parts = joined(part for linear in group for part in linear.parts)
            ops.append(Linear(group[0].x, value.name, parts))
            starts = (0, *accumulate(widths))
            ops += [View(value.name, g.out, s) for g, s in zip(group, starts, strict=False)]
        elif id(op) not in members:
            ops.append(op)
    return graph.rebuilt(tuple(ops), *values)


def _name(names: Sequence[str]) -> str:
    """Return `0.attn.q+k+v` for `0.attn.q`, `0.attn.k` and `0.attn.v`."""
    tails = (name.rpartition(".")[2] for name in names[1:])
    return "+".join((names[0], *tails))
