"""A table as data, before it is HTML or Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, whether it holds numbers, and how they were obtained."""

    label: str
    numeric: bool = False
    how: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under named columns; `note` is a sentence to stand below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Check that every row has a cell for every column."""
        assert all(len(row) == len(self.columns) for row in self.rows)


def words(*labels: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(label) for label in labels)


def numbers(*labels: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(label, numeric=True) for label in labels)
