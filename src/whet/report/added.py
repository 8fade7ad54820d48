"""Records added to a folder that has been written: its evidence, its pages, its manifest."""

from collections.abc import Sequence
from pathlib import Path

from whet.base.record import Record
from whet.report.render import write_pages
from whet.store.durable import write_atomic
from whet.store.manifest import read_manifest, write_manifest

RECORDS = "records.jsonl"


def add(folder: Path, records: Sequence[Record]) -> None:
    """Append records to a folder's evidence, render its pages anew, and seal it again."""
    facts = read_manifest(folder)["facts"]
    added = "".join(record.line() + "\n" for record in records).encode()
    before = (folder / RECORDS).read_bytes()
    write_atomic(folder / RECORDS, [before, added], len(before) + len(added))
    write_pages(folder)
    write_manifest(folder, facts)
