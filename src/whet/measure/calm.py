"""Rounds of timing that nothing disturbed. Torch-free.

Neighbours and the system slow a machine down, never up, and often for seconds: threads that were put
on processors far from each other take three times as long to meet, so that a small model writes half
as many tokens. A look at something small that always takes as long tells such times from others. What is
timed in them is thrown away and timed again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

SLACK = 1.25  # times the best that a look may take
LOOKS = 3  # of which the quickest counts: one alone may meet an interrupt
PATIENCE = 15.0  # that a process waits and times in vain before it takes the machine as it is [s]

T = TypeVar("T")
Look = Callable[[], float]  # -> seconds that something takes which always takes as long


@dataclass(slots=True)
class Calm:
    """What tells whether the machine is as quick as it has been.

    best  the quickest that each look was, in this process or, where that is known, an earlier one [s]
    keep  is told of it after some rounds
    lost  time that was spent waiting, and on rounds that were thrown away [s]
    own   the quickest that each look was in this process [s]
    Law: `lost` grows by no more than one round beyond `patience`.
    """

    looks: Sequence[Look] = ()
    best: list[float] = field(default_factory=list[float])
    keep: "Callable[[Calm], None] | None" = None
    patience: float = PATIENCE
    lost: float = 0.0
    own: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Look once, so that there is a best."""
        self.own = self._seen()
        self.best = list(map(min, self.best or self.own, self.own))

    @property
    def given_up(self) -> bool:
        """Whether the machine is taken as it is."""
        return self.lost >= self.patience

    def now(self) -> bool:
        """Return whether nothing disturbs the machine at this moment."""
        seen = self._seen()
        self.own, self.best = list(map(min, self.own, seen)), list(map(min, self.best, seen))
        return all(a <= SLACK * b for a, b in zip(seen, self.best, strict=True))

    def _seen(self) -> list[float]:
        return [min(look() for _ in range(LOOKS)) for look in self.looks]

    def wait(self) -> None:
        """Return when nothing disturbs the machine, or patience is over."""
        began = perf_counter()
        while not self.given_up and not self.now():
            self.lost += perf_counter() - began
            began = perf_counter()

    def rounds(
        self, once: Callable[[], T], least: int, most: int, enough: float = float("inf")
    ) -> list[T]:
        """Return what `once` gives in undisturbed rounds.

        At least `least`, and more up to `most` until they have taken `enough` [s].
        """
        found: list[T] = []
        spent = 0.0
        while len(found) < least or (len(found) < most and spent < enough):
            self.wait()
            began = perf_counter()
            value = once()
            took = perf_counter() - began
            if self.given_up or self.now():
                found.append(value)
                spent += took
            else:
                self.lost += took
        if self.keep is not None:
            self.keep(self)
        return found
