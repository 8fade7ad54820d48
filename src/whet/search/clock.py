"""The time budget of a search, and how its phases have used it."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from whet.report.words import duration


@dataclass(frozen=True, slots=True)
class Clock:
    """A time budget that starts when it is made. Law: `left` never grows.

    `now` returns the current time [s]; a simulation passes its own.
    """

    seconds: float
    now: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        """Start."""
        object.__setattr__(self, "began", self.now())

    @property
    def spent(self) -> float:
        """Time since the start [s]."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Time until the budget ends [s]; 0 once it is over."""
        return max(0.0, self.seconds - self.spent)

    def rounds_until(self, deadline_s: float) -> Callable[[], bool]:
        """Return a predicate asked before each round: whether one as long as the longest so far fits.

        The deadline is a time spent [s].
        """
        last, longest = self.spent, 0.0

        def fits() -> bool:
            nonlocal last, longest
            now = self.spent
            longest, last = max(longest, now - last), now
            return now + longest <= deadline_s

        return fits


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a search: the time planned for it and the time that it took [s], and its effort."""

    name: str
    planned_s: float
    spent_s: float
    effort: str = ""


def _nobody(_: str) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Timeline:
    """The phases of a search in order, as planned and as they were; `say` is told what is planned."""

    clock: Clock
    phases: list[Phase] = field(default_factory=list[Phase])
    say: Callable[[str], None] = _nobody

    @contextmanager
    def phase(self, name: str, planned_s: float, effort: str = "") -> Generator[None]:
        """Record a phase; one that fails is recorded too."""
        if planned_s > 0:
            self.say(f"{name}: {duration(planned_s)} planned{effort and f', {effort}'}")
        began = self.clock.spent
        try:
            yield
        finally:
            spent = self.clock.spent - began
            self.phases.append(Phase(name, planned_s, spent, effort))
