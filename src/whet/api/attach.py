"""Add measurements to a folder that whet has written: its records, its pages, its manifest."""

from collections.abc import Sequence
from pathlib import Path

from whet.base.errors import FolderError
from whet.base.record import Record
from whet.report.added import RECORDS, add
from whet.store.manifest import MANIFEST, verify
from whet.store.publish import lock


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
        add(folder, records)
