"""How far a run has come: a bar on a terminal, a line every ten seconds elsewhere."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from whet.base.text import plain
from whet.cli.output import is_terminal, tell
from whet.cli.pace import Pace
from whet.report.words import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, TaskID

EVERY = 10.0  # [s]


class Progress(Protocol):
    """Who is told how the work goes."""

    def start(self, total: int, what: str, within: float | None = None) -> None:
        """Begin `total` units of work, which takes no longer than `within` [s]."""
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


def told(pace: Pace) -> str:
    """Return the time that is left, in words to stand at the end of a line."""
    left, bound = pace.left(), "about" if pace.within is None else "at most"
    return "" if left is None else f", {bound} {duration(left)} left"


class Lines:
    """A line every ten seconds, also while a long unit is under way."""

    def __init__(self, every: float = EVERY, say: Callable[[str], None] = tell) -> None:
        self._every, self._say = every, say
        self._end = threading.Event()
        self._ticker: threading.Thread | None = None
        self._pace, self._what, self._name = Pace(0), "", ""

    def start(self, total: int, what: str, within: float | None = None) -> None:
        """Begin."""
        self.close()
        self._pace, self._name, self._what = Pace(total, within), what, ""
        self._end = threading.Event()
        self._ticker = threading.Thread(target=self._tick, args=(self._end,), daemon=True)
        self._ticker.start()

    def advance(self, done: int, what: str) -> None:
        """Note where the work stands."""
        self._pace.advance(done)
        self._what = plain(what)

    def note(self, text: str) -> None:
        """Write a line now."""
        self._say(plain(text))

    def finish(self) -> None:
        """Say how long it took."""
        if self._ticker is not None:
            self.close()
            self._say(f"{self._name}: done in {duration(self._pace.elapsed)}")

    def close(self) -> None:
        """Write no more lines."""
        if self._ticker is not None:
            self._end.set()
            self._ticker.join()
            self._ticker = None

    def line(self) -> str:
        """Return where the work stands."""
        pace = self._pace
        under_way = f", {self._what}" if self._what not in {"", self._name} else ""
        share = f"{pace.done} of {pace.total}{under_way}"
        return f"{self._name}: {share}, {duration(pace.elapsed)}{told(pace)}"

    def _tick(self, end: threading.Event) -> None:
        while not end.wait(self._every):
            self._say(self.line())


class Bar:
    """A bar with what is under way, the time so far and the time left."""

    def __init__(self) -> None:
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None
        self._pace = Pace(0)

    def start(self, total: int, what: str, within: float | None = None) -> None:
        """Begin."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self.close()
        self._pace = Pace(total, within)
        words = TextColumn("{task.description}", markup=False)
        now = TextColumn("{task.fields[what]}", markup=False, style="dim")
        parts = (words, BarColumn(28), TextColumn("{task.percentage:>3.0f} %"))
        shown = Console(stderr=True)
        drawn = RichProgress(*parts, self._clock(), now, console=shown)
        self._task = drawn.add_task(plain(what), total=total, what="")
        drawn.start()
        self._rich = drawn

    def advance(self, done: int, what: str) -> None:
        """Draw where the work stands."""
        self._pace.advance(done)
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

    def _clock(self) -> "ProgressColumn":
        """Return the column that shows the time so far and the time left."""
        from rich.progress import ProgressColumn, Task
        from rich.text import Text

        pace = self._pace

        class Clock(ProgressColumn):
            """Drawn anew while nothing advances."""

            def render(self, task: Task) -> Text:
                """Return the times."""
                return Text(f"{duration(pace.elapsed)}{told(pace)}")

        return Clock()
