"""How far a run has come, on disk: after a kill at any moment the last finished part stands.

A part's files are written and flushed first; then `progress.json` is replaced in one rename. What a
killed run left behind beyond that is overwritten. Law: resumed and straight runs give the same bytes.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from whet.base.errors import FolderError
from whet.store.durable import write_json
from whet.store.json_file import read_json

AFRESH = "Start afresh with --resume never."


@runtime_checkable
class Progress(Protocol):
    """Who is told how the work goes; the command line draws it."""

    def start(self, total: int, what: str, within: float | None = None) -> None:
        """Begin `total` units of work, which takes no longer than `within` [s]."""

    def advance(self, done: int, what: str) -> None:
        """Say that `done` units are finished, and which is under way."""

    def note(self, text: str) -> None:
        """Say something worth a line."""

    def finish(self) -> None:
        """End."""


class Silence:
    """Tells nobody."""

    def start(self, total: int, what: str, within: float | None = None) -> None:
        """Do nothing."""

    def advance(self, done: int, what: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


def finished(work: Path) -> int:
    """Return how many parts are done, 0 for a new run."""
    path = work / "progress.json"
    if not path.is_file():
        return 0
    done = read_json(path).get("done")
    if not isinstance(done, int) or done < 0:
        raise FolderError(f"{path} has done = {done!r}, expected a number of parts", AFRESH)
    return done


def commit(work: Path, done: int) -> None:
    """Make `done` parts last: everything that they wrote must have been flushed before."""
    write_json(work / "progress.json", {"done": done})
