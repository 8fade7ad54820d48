"""Why a folder is as it is, told from its records. Needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from whet.api.inspection import folder_records
from whet.base.errors import MissingError
from whet.base.record import Record
from whet.report import resources, summary, tables
from whet.report.evidence import Evidence, evidence
from whet.report.search import account
from whet.report.search import tables as found
from whet.report.search.found import searched
from whet.report.table import Table


@dataclass(frozen=True, slots=True)
class Explanation:
    """An account in sentences, tables under their headings, and the records both are made from."""

    path: Path
    account: tuple[str, ...]
    sections: tuple[tuple[str, Table], ...]
    records: tuple[Record, ...]


def explanation(path: Path) -> Explanation:
    """Return why a folder is as it is: the choice of its search, or else what its steps did.

    Law: a folder without records is refused, for there is nothing to tell it from.
    """
    if not path.is_dir():
        raise MissingError(f"{path} is no folder", "Give a folder that whet has written.")
    records = folder_records(path)
    if not records:
        raise MissingError(
            f"{path} has no records.jsonl, so nothing is known of how it was made",
            "Only folders that whet has written can be explained; `whet inspect` shows any.",
        )
    e = evidence(records)
    return Explanation(path, tuple(_account(e)), tuple(_sections(e)), records)


def _account(e: Evidence) -> Iterable[str]:
    """Yield what was chosen and why; without a search, what was done."""
    search = searched(e)
    if search is not None:
        yield from account.paragraphs(search)
        return
    yield " ".join(summary.sentences(e))
    for line in summary.headlines(e):
        if line.interval:
            yield f"{line.label}: {line.number} ({line.interval}), {line.sentence}".rstrip(", ")
    if e.quality is None:
        yield f"What that cost is not measured yet: {summary.measure_command(e)}"


def _sections(e: Evidence) -> Iterable[tuple[str, Table]]:
    """Yield the tables, those of the search first."""
    search = searched(e)
    if search is not None:
        yield from found.every(search)
    makers = (
        ("Stages", resources.stages),
        ("Schemes", tables.schemes),
        ("The modules that changed most", tables.worst),
        ("Left as they were", tables.skipped),
    )
    for heading, make in (*(() if search else makers), ("Fallbacks", tables.fallbacks)):
        if (data := make(e)) is not None:
            yield heading, data
