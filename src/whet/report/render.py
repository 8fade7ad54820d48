"""The pages of a folder, each a pure function of its records."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from whet.base.record import Record, read_records
from whet.report.card import card
from whet.report.evidence import evidence
from whet.report.html import html
from whet.report.markdown import markdown
from whet.store.durable import write_atomic

SOURCES = ("records.jsonl", "run.jsonl")  # the evidence, and what concerns the run alone


def pages(records: Iterable[Record]) -> dict[str, str]:
    """Return the pages by file name. Law: the same records give the same pages."""
    e = evidence(records)
    return {"report.html": html(e), "report.md": markdown(e), "README.md": card(e)}


def write_pages(folder: Path) -> tuple[Path, ...]:
    """Render the pages of a folder from its records; each file is replaced in one step."""
    rendered = pages(record for name in SOURCES for record in _records(folder / name))
    for name, text in rendered.items():
        content = text.encode()
        write_atomic(folder / name, [content], len(content))
    return tuple(folder / name for name in rendered)


def _records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, none if it is not there."""
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from read_records(lines, path)
