"""The one progress of a search, of which every part of the work is a share."""

from collections.abc import Callable
from dataclasses import dataclass

from whet.base.errors import StoppedError
from whet.recipe.progress import Progress
from whet.search.ask import Told

PARTS = 1000  # into which the work is divided for who watches


@dataclass(slots=True)
class Teller:
    """Tells how far the search is, and stops it when asked.

    Law: what is told never goes back, although parts are done again.
    """

    progress: Progress
    stopped: Callable[[], bool]
    far: float = 0.0

    def part(self, first: float, last: float) -> Told:
        """Return what tells of a part of the work; it raises StoppedError if that is to end."""

        def told(share: float, what: str) -> None:
            whole = first + min(1.0, max(0.0, share)) * (last - first)
            self.far = max(self.far, whole)
            self.progress.advance(round(PARTS * self.far), what)
            if self.stopped():
                raise StoppedError(f"stopped at {what}", "Run the same command to go on.")

        return told


@dataclass(slots=True)
class Within:
    """Progress of a compression that is a part of the search."""

    told: Told
    total: int = 1

    def start(self, total: int, what: str, within: float | None = None) -> None:
        """Begin `total` units of work."""
        self.total = max(total, 1)

    def advance(self, done: int, what: str) -> None:
        """Say that `done` units are finished, and which is under way."""
        self.told(done / self.total, f"compress, {what}")

    def note(self, text: str) -> None:
        """Say nothing: what is worth a line is in the records."""

    def finish(self) -> None:
        """End."""
