"""`whet inspect`."""

from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.api.inspection import Inspection
    from whet.api.operators import Operators, Stage


@verb("inspect")
@click.argument("folder")
@click.option(
    "--graph", is_flag=True, help="Show the operators, before and after each rewrite, instead."
)
def command(*, folder: str, graph: bool, style: str, offline: bool) -> None:
    """Show what a model folder holds.

    Reads the headers of the weights, never the weights: family, sizes, types of tensors, number
    formats, and what was measured. FOLDER is any SOURCE.
    """
    from whet import api
    from whet.cli import output

    if graph:
        _show_graph(api.graph(folder, offline=offline), style)
        return
    found = api.inspect(folder, offline=offline)
    if style == "json":
        output.result_json(_values(found))
    else:
        _show(found)


def _values(found: "Inspection") -> dict[str, Any]:
    """Return an inspection as plain values."""
    return {**asdict(found), "path": str(found.path)}


def _show(found: "Inspection") -> None:
    """Write an inspection for people."""
    from whet.cli import output
    from whet.report import summary
    from whet.report import words as say
    from whet.report.evidence import evidence
    from whet.report.table import Table, numbers, words

    e = evidence(found.records)
    family = found.family or f"none: {found.refusal}"
    rows = [
        ("folder", str(found.path)),
        ("model", f"{found.model_type}, family {family}"),
        ("sizes", ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in found.sizes.items())),
        (
            "weights",
            f"{say.size(found.nbytes)} in {say.plural(found.shards, 'file')}, {found.dialect}",
        ),
        ("keys and values", _kept(found)),
        ("formats", ", ".join(f"{n:,} × {name}" for name, n in found.schemes.items())),
        ("recipe", summary.recipe_name(e)),
    ]
    rows += [("not read", f"{name}: {why}") for name, why in found.unused.items()]
    rows += [(line.label, f"{line.number} {line.interval}") for line in _measured(e)]
    output.result(output.pairs((name, told) for name, told in rows if told) + "\n")
    stock = tuple(
        (s.dtype, say.count(s.tensors), say.count(s.numbers), say.size(s.nbytes))
        for s in found.stock
    )
    heads = words("type") + numbers("tensors", "numbers", "size")
    output.result(output.columns(Table(heads, stock)))


def _kept(found: "Inspection") -> str:
    """Return what keys and values are kept in, and what they take."""
    from whet.report import words as say

    if not found.cache:
        return ""
    context = found.sizes["context"]
    return (
        f"{found.cache}, {found.token_bytes:,} bytes a token, "
        f"{say.size(found.token_bytes * context)} for a context of {context:,}"
    )


def _measured(e: Any) -> list[Any]:  # noqa: ANN401 (of the report, imported late)
    """Return the headlines that have a number."""
    from whet.report import summary

    return [line for line in summary.headlines(e) if line.interval]


def _show_graph(found: "Operators", style: str) -> None:
    """Write every stage of a graph."""
    from whet.cli import output
    from whet.report import words as say
    from whet.report.table import Table, numbers, words

    if style == "json":
        output.result_json({**asdict(found), "path": str(found.path)})
        return
    output.result("\n".join(_drawn(found.stages[0])) + "\n")
    for before, stage in pairwise(found.stages):
        output.result("\n".join(_changed(stage, before)) + "\n")
    output.result("\n".join(("at the end", *_drawn(found.stages[-1])[1:])) + "\n")
    output.result(f"steps of up to {found.rows} tokens, the logits of one; family {found.family}\n")
    heads = words("rewrite") + numbers("operators", "planned", "apart") + words("what it does")
    rows = tuple(
        (s.rewrite, say.count(s.operators), say.size(s.planned), say.size(s.apart), s.what)
        for s in found.stages
    )
    output.result(output.columns(Table(heads, rows)))


def _drawn(stage: "Stage") -> list[str]:
    """Return all operators of a stage, under what it is."""
    lines = [stage.what]
    for section in stage.sections:
        lines += [f"  {section.title}", *(f"    {line}" for line in section.lines)]
    return lines


def _changed(stage: "Stage", before: "Stage") -> list[str]:
    """Return what a rewrite has changed, and what it has not, and why."""
    from whet.graph.text import changes

    bound = f"logits within {stage.bound:g}" if stage.bound else "the same logits"
    lines = [f"{stage.rewrite}: {stage.what}; {bound}"]
    lines += [f"  {count} not: {reason}" for reason, count in stage.refused.items()]
    for section in stage.sections:
        if found := changes(before.sections, section):
            lines += [f"  {section.title}", *(f"    {line}" for line in found)]
    return lines if stage.sections != before.sections else [*lines, "  nothing to do"]
