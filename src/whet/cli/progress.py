"""How far a run has come: a bar on a terminal, a line every ten seconds elsewhere."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from whet.base.text import plain
from whet.cli.output import is_terminal, tell
from whet.report.words import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

EVERY = 10.0  # [s]


class Progress(Protocol):
    """Who is told how the work goes."""

    def start(self, total: int, what: str) -> None:
        """Begin `total` units of work."""
        ...

    def advance(self, done: int, what: str) -> None:
        """Say that `done` units are finished, and which is under way."""
        ...

    def note(self, text: str) -> None:
        """Say something worth a line."""
        ...

    def finish(self) -> None:
        """End."""
        ...


@contextmanager
def watched() -> Generator[Progress]:
    """Yield a bar where stderr is a terminal, else lines; whatever happens, it ends in the end."""
    shown = Bar() if is_terminal() else Lines()
    try:
        yield shown
    finally:
        shown.close()


def remaining(elapsed: float, done: int, already: int, total: int) -> float | None:
    """Return the time that is left [s] if the rest goes as what this run did; None if unknown."""
    known = already < done < total
    return elapsed / (done - already) * (total - done) if known else None


class Lines:
    """A line every ten seconds, also while a long unit is under way."""

    def __init__(self, every: float = EVERY, say: Callable[[str], None] = tell) -> None:
        self._every, self._say = every, say
        self._end = threading.Event()
        self._ticker: threading.Thread | None = None
        self._began, self._what, self._name = 0.0, "", ""
        self._total = self._done = 0
        self._already: int | None = None

    def start(self, total: int, what: str) -> None:
        """Begin."""
        self.close()
        self._began, self._total, self._name, self._what = time.monotonic(), total, what, ""
        self._done, self._already = 0, None
        self._end = threading.Event()
        self._ticker = threading.Thread(target=self._tick, args=(self._end,), daemon=True)
        self._ticker.start()

    def advance(self, done: int, what: str) -> None:
        """Note where the work stands; the first report is where an earlier run had stopped."""
        if self._already is None:
            self._already = done
        self._done, self._what = done, plain(what)

    def note(self, text: str) -> None:
        """Write a line now."""
        self._say(plain(text))

    def finish(self) -> None:
        """Say how long it took."""
        if self._ticker is not None:
            self.close()
            self._say(f"{self._name}: done in {duration(time.monotonic() - self._began)}")

    def close(self) -> None:
        """Write no more lines."""
        if self._ticker is not None:
            self._end.set()
            self._ticker.join()
            self._ticker = None

    def line(self) -> str:
        """Return where the work stands."""
        elapsed = time.monotonic() - self._began
        left = remaining(elapsed, self._done, self._already or 0, self._total)
        rest = f", about {duration(left)} left" if left is not None else ""
        under_way = f", {self._what}" if self._what not in {"", self._name} else ""
        share = f"{self._done} of {self._total}{under_way}"
        return f"{self._name}: {share}, {duration(elapsed)}{rest}"

    def _tick(self, end: threading.Event) -> None:
        while not end.wait(self._every):
            self._say(self.line())


class Bar:
    """A bar with what is under way, the time so far and the time left."""

    def __init__(self) -> None:
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None

    def start(self, total: int, what: str) -> None:
        """Begin."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.close()
        left = TimeRemainingColumn(elapsed_when_finished=True)
        words = TextColumn("{task.description}", markup=False)
        now = TextColumn("{task.fields[what]}", markup=False, style="dim")
        parts = (words, BarColumn(28), TextColumn("{task.percentage:>3.0f} %"))
        shown = Console(stderr=True)
        drawn = RichProgress(*parts, TimeElapsedColumn(), left, now, console=shown)
        self._task = drawn.add_task(plain(what), total=total, what="")
        drawn.start()
        self._rich = drawn

    def advance(self, done: int, what: str) -> None:
        """Draw where the work stands."""
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, completed=done, what=plain(what))

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        if self._rich is None:
            tell(text)
        else:
            self._rich.console.print(plain(text), markup=False, highlight=False)

    def finish(self) -> None:
        """Fill the bar and leave it."""
        if self._rich is not None and self._task is not None:
            total = self._rich.tasks[0].total
            self._rich.update(self._task, completed=total, what="")
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._rich is not None:
            self._rich.stop()
        self._rich = self._task = None
