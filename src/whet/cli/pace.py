"""How much longer work will take, from how long its last units took."""

from collections import deque
from collections.abc import Callable
from time import monotonic

RECENT = 3  # units that tell the pace; the slowest of them counts
ENOUGH = 2  # units after which there is something to tell


class Pace:
    """Times of units of work; the first report, where an earlier run had stopped, tells no pace.

    Law: the time left is never less than that of the units that are not begun. Work that is given a
    time, `within`, has what is left of it [s].
    """

    def __init__(
        self, total: int, within: float | None = None, now: Callable[[], float] = monotonic
    ) -> None:
        self.total, self.within, self.done = total, within, 0
        self._now, self._began = now, now()
        self._at: float | None = None
        self._seen = 0
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def elapsed(self) -> float:
        """Time since the beginning [s]."""
        return self._now() - self._began

    def advance(self, done: int) -> None:
        """Note that `done` units are finished."""
        now = self._now()
        if self._at is not None and done > self.done:
            self._recent.append((now - self._at) / (done - self.done))
            self._seen += done - self.done
        if self._at is None or done > self.done:
            self._at = now
        self.done = done

    def left(self) -> float | None:
        """Return the time that is left [s], or None while, or once, it cannot be told."""
        if self.within is not None:
            return self.within - self.elapsed if self.elapsed < self.within else None
        if self._at is None or self._seen < ENOUGH or self.done >= self.total:
            return None
        unit, units = max(self._recent), self.total - self.done
        return max(unit * units - (self._now() - self._at), unit * (units - 1))
