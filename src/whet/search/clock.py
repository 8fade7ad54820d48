"""How much time is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Clock:
    """A budget of time, counted from the moment it is made. Law: `left` never grows."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Time since the beginning [s]."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Time that is left [s]; 0 once it is over."""
        return max(0.0, self.seconds - self.spent)

    def share(self, spare: float) -> float:
        """Return the share of the time after which no more than `spare` is left of it [1]."""
        return max(0.0, 1 - spare / self.seconds)

    def until(self, share: float) -> Callable[[], bool]:
        """Return what says whether less than a share of the time is gone."""
        return lambda: self.spent < share * self.seconds
