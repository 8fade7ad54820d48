"""Graphs as lines of text, equal blocks once. Needs no torch.

In a block `.x` is a value of its own, `↑x` one of the block before (or of the embedding), `↓x` one of
the block after (or of the head).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import singledispatch

from whet.graph import ir
from whet.graph.ir import Graph, Op, Values, steps
from whet.graph.weights import Part


@dataclass(frozen=True, slots=True)
class Section:
    """Operators of blocks that are alike; `layers` are their numbers, none for both ends.

    `title` says which these are: `blocks 1–20 (20 alike)`.
    """

    title: str
    layers: tuple[int, ...]
    lines: tuple[str, ...]


def sections(graph: Graph) -> tuple[Section, ...]:
    """Return a graph's operators in the order in which they run, blocks that are alike once."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for layer, lines in _blocks(graph):
        layers = alike.setdefault(lines, [])
        layers += [] if layer is None else [layer]
    found: list[Section] = []
    for lines, layers in alike.items():
        found.append(Section(_title(layers, first=not found), tuple(layers), lines))
    return tuple(found)


def _title(layers: Sequence[int], *, first: bool) -> str:
    if not layers:
        return "embedding" if first else "head"
    if len(layers) == 1:
        return f"block {layers[0]}"
    named = ", ".join(f"{a}–{b}" if a < b else f"{a}" for a, b in _ranges(layers))
    return f"blocks {named} ({len(layers)} alike)"


def changes(before: Sequence[Section], after: Section) -> tuple[str, ...]:
    """Return the lines of a section that are new, after `+`, and that are no more, after `−`.

    It is compared with the section in which its first block was before.
    """
    key = after.layers[:1] or (after.title,)
    like = (old.lines for old in before if key[0] in (*old.layers, old.title))
    old = next(like, ())
    found: list[str] = []
    matched = SequenceMatcher(None, old, after.lines, autojunk=False)
    for kind, i, j, k, m in matched.get_opcodes():
        if kind != "equal":
            found += [f"− {line}" for line in old[i:j]] + [f"+ {line}" for line in after.lines[k:m]]
    return tuple(found)


def _blocks(graph: Graph) -> Iterator[tuple[int | None, tuple[str, ...]]]:
    """Yield the lines of each run of operators that belong to one block."""
    lines: list[str] = []
    here = _layer(graph.ops[0].writes[0]) if graph.ops else None
    for op in graph.ops:
        layer = here if isinstance(op, ir.Last) else _layer(op.writes[0])
        if layer != here:
            yield here, tuple(lines)
            here, lines = layer, []
        lines.append(line(op, graph.values, layer))
    yield here, tuple(lines)


def line(op: Op, values: Values, layer: int | None = None) -> str:
    """Return an operator as a line: what it writes, its name, what it reads, its settings."""
    writes, reads = (
        ", ".join(_relative(name, layer) for name in names) for names in (op.writes, op.reads)
    )
    told = " ".join(filter(None, (detail(step) for step in steps(op))))
    some = {values[name].rows for name in op.writes} == {"wanted"}
    width = str(values[op.writes[0]].width or "")
    return " ".join(f"{writes} = {op.name}({reads}) {width} {told}".split()) + " [wanted]" * some


def _layer(name: str) -> int | None:
    """Return the block of a value."""
    head = name.partition(".")[0]
    return int(head) if head.isdigit() else None


def _relative(name: str, layer: int | None) -> str:
    """Return a value's name as seen from a block."""
    own = _layer(name)
    tail = name.partition(".")[2]
    if layer is None:
        return name
    if own is None:
        return ("↑" if name in (ir.TOKENS, "hidden") else "↓") + name
    return ("." if own == layer else "↑" if own < layer else "↓") + tail


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of numbers."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def weights(parts: Sequence[Part]) -> str:
    """Return where weights lie, and in which format: `attn.qkv[0:32] int4-g64`."""
    schemes = [str(part.scheme) for part in parts]
    if len({*schemes}) == 1:
        return f"{', '.join(map(_rows, parts))} {schemes[0]}"
    return ", ".join(f"{_rows(p)} {scheme}" for p, scheme in zip(parts, schemes, strict=True))


def _rows(part: Part) -> str:
    rows = "" if part.whole else f"[{', '.join(map(str, part.spans))}]"
    return part.site.role + rows + "·gain" * (part.gain is not None) + " + bias" * part.site.bias


@singledispatch
def detail(op: Op) -> str:  # noqa: ARG001 (what the kinds of operators tell)
    """Return an operator's settings, where it has any that are not seen already."""
    return ""


@detail.register
def _(op: ir.Embed) -> str:
    scale = "" if op.scale == 1 else f" ×{op.scale:g}"
    return weights((op.part,)) + scale + " + positions" * (op.positions is not None)


@detail.register
def _(op: ir.Norm) -> str:
    return f"{op.kind} ε {op.eps:g}" + f" heads {op.heads}" * (op.heads > 1)


@detail.register
def _(op: ir.Linear) -> str:
    return weights(op.parts)


@detail.register
def _(op: ir.Quantize) -> str:
    return str(op.activation or "as its kernel asks")


@detail.register
def _(op: ir.View) -> str:
    return f"from {op.start}"


@detail.register
def _(op: ir.Rope) -> str:
    return f"heads {op.heads} of {op.dim}" + f", {op.turned} turned" * (op.turned < op.dim)


@detail.register
def _(op: ir.Attend) -> str:
    window = "" if op.window is None else f" window {op.window}"
    cap = "" if op.cap is None else f" cap {op.cap:g}"
    return f"heads {op.heads}/{op.kv_heads} of {op.dim}" + window + cap


@detail.register
def _(op: ir.Gate) -> str:
    return op.kind


@detail.register
def _(op: ir.Activate) -> str:
    return op.kind


@detail.register
def _(op: ir.Cap) -> str:
    return f"{op.cap:g}"


@detail.register
def _(op: ir.Experts) -> str:
    formats = ", ".join(dict.fromkeys(str(expert.up.scheme) for expert in op.experts))
    return f"{op.active} of {len(op.experts)} {formats}" + " joined" * op.joined
