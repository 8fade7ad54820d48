"""`whet inspect`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.api.inspection import Inspection


@verb("inspect")
@click.argument("folder")
def command(*, folder: str, style: str, offline: bool) -> None:
    """Show what a model folder holds.

    Reads the headers of the weights, never the weights: family, sizes, types of tensors, number
    formats, and what was measured. FOLDER is any SOURCE.
    """
    from whet import api
    from whet.cli import output

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
        ("formats", ", ".join(f"{n:,} × {name}" for name, n in found.schemes.items())),
        ("recipe", summary.recipe_name(e)),
    ]
    rows += [(line.label, f"{line.number} {line.interval}") for line in _measured(e)]
    output.result(output.pairs((name, told) for name, told in rows if told) + "\n")
    stock = tuple(
        (s.dtype, say.count(s.tensors), say.count(s.numbers), say.size(s.nbytes))
        for s in found.stock
    )
    heads = words("type") + numbers("tensors", "numbers", "size")
    output.result(output.columns(Table(heads, stock)))


def _measured(e: Any) -> list[Any]:  # noqa: ANN401 (of the report, imported late)
    """Return the headlines that have a number."""
    from whet.report import summary

    return [line for line in summary.headlines(e) if line.interval]
