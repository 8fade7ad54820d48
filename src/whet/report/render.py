"""The pages of a folder, each a pure function of its records."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from whet.base.record import Record, read_records
from whet.report.card import card
from whet.report.evidence import evidence
from whet.report.html import html
from whet.report.markdown import markdown

RECORDS = ("records.jsonl", "run.jsonl")  # about the result, and about the run that made it


def pages(records: Iterable[Record]) -> dict[str, str]:
    """Return the pages by file name. Law: the same records give the same pages."""
    e = evidence(records)
    return {"report.html": html(e), "report.md": markdown(e), "README.md": card(e)}


def _kept(folder: Path) -> Iterator[Record]:
    for name in RECORDS:
        if (folder / name).is_file():
            yield from read_records((folder / name).read_text(encoding="utf-8").splitlines())


def write_pages(folder: Path) -> tuple[Path, ...]:
    """Render the pages of a folder from its records; each file is replaced in one step."""
    rendered = pages(_kept(folder))
    for name, text in rendered.items():
        fresh = folder / f".{name}.new"
        fresh.write_bytes(text.encode())
        fresh.replace(folder / name)
    return tuple(folder / name for name in rendered)
