"""Results to stdout, everything else to stderr."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any
from unicodedata import east_asian_width

import click

from whet.base.record import Record
from whet.base.text import plain
from whet.report.table import Column, Table

GAP = "  "


def result(text: str) -> None:
    """Write a result, without control characters."""
    click.echo(plain(text, keep="\n\t"))


def result_json(value: object) -> None:
    """Write a result as JSON; what is not finite becomes null."""
    click.echo(json.dumps(finite(value), ensure_ascii=False, indent=2, default=str))


def tell(text: str) -> None:
    """Write a line to stderr."""
    click.echo(plain(text, keep="\n"), err=True)


def finite(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Return a value in which NaN and infinities are null, as strict JSON wants it."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def record_dicts(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return records as plain values."""
    return [asdict(record) for record in records]


def coloured() -> bool:
    """Return whether stderr shows colours: a terminal, unless NO_COLOR is set."""
    plain_wanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal() and not plain_wanted


def is_terminal() -> bool:
    """Return whether somebody watches stderr."""
    return sys.stderr.isatty()


def columns(table: Table, *, heads: bool = True) -> str:
    """Return a table as aligned text; the last column is left as long as it is."""
    rows = [tuple(plain(cell) for cell in row) for row in table.rows]
    if heads:
        rows.insert(0, tuple(column.label for column in table.columns))
    widths = [max((wide(cell) for cell in cells), default=0) for cells in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths, table.columns) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int], heads: Sequence[Column]) -> str:
    """Return one row, numbers to the right."""
    cells = (
        " " * (width - wide(cell)) + cell if head.numeric else cell + " " * (width - wide(cell))
        for cell, width, head in zip(row, widths, heads, strict=True)
    )
    return GAP.join(cells).rstrip()


def wide(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values as two aligned columns."""
    return columns(Table((Column(""), Column("")), tuple(rows)), heads=False)
