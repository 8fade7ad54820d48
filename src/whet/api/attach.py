"""Add measurements to a folder that whet has written: its records, its pages, its manifest."""

from collections.abc import Sequence
from pathlib import Path

from whet.base.errors import FolderError
from whet.base.record import Record
from whet.report.render import write_pages
from whet.store.durable import write_atomic
from whet.store.manifest import MANIFEST, read_manifest, verify, write_manifest
from whet.store.publish import lock

RECORDS = "records.jsonl"


def is_output(folder: Path) -> bool:
    """Return whether a folder was written by whet: it has a manifest and records."""
    return all((folder / name).is_file() for name in (MANIFEST, RECORDS))


def attach(folder: Path, records: Sequence[Record]) -> None:
    """Append records to a folder's evidence, render its pages anew, and seal it again.

    Law: a folder that differs from its manifest is refused and left as it is, so that a change made
    by somebody else is never sealed.
    """
    with lock(folder):
        if differences := verify(folder):
            raise FolderError(
                f"{folder} is not as whet wrote it: {differences[0]}",
                "Nothing was added to it; `whet verify` lists every difference.",
            )
        facts = read_manifest(folder)["facts"]
        added = "".join(record.line() + "\n" for record in records).encode()
        before = (folder / RECORDS).read_bytes()
        write_atomic(folder / RECORDS, [before, added], len(before) + len(added))
        write_pages(folder)
        write_manifest(folder, facts)
