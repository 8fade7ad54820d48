"""The axes of a plot: the ends that hold its numbers, where they lie, and the marks on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

SAME = 1e-9  # of a number, from which on another is different
AROUND = 0.06  # of the span, left free at each end
FAR = 0.3  # of the span: a limit further away than this does not stretch the axis
WIDEST = 100.0  # powers of ten: wider than anything that is measured


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic scale from numbers to places in the drawing."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the place of a number."""
        low, high, here = (self._scaled(v) for v in (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.stop - self.start)

    def holds(self, value: float) -> bool:
        """Return whether a number lies between the ends."""
        return self.low <= value <= self.high

    def marks(self) -> list[float]:
        """Return the numbers to be written beside the axis."""
        return _decades(self.low, self.high) if self.logarithmic else _even(self.low, self.high)

    def _scaled(self, value: float) -> float:
        return log10(value) if self.logarithmic else value


def linear(values: Sequence[float], limits: Iterable[float], start: float, stop: float) -> Axis:
    """Return a linear axis around positive values, and around limits that are not far from them."""
    low, high = _ends(values, limits)
    return Axis(max(low, 0.0), high, start, stop)


def logarithmic(
    values: Sequence[float], limits: Iterable[float], start: float, stop: float
) -> Axis:
    """Return a logarithmic axis around positive values and limits that are not far from them."""
    low, high = _ends([log10(v) for v in values], [log10(v) for v in limits])
    low, high = max(low, high - WIDEST, -300.0), min(high, 300.0)
    return Axis(10.0**low, 10.0**high, start, stop, logarithmic=True)


def _ends(values: Sequence[float], limits: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis with some room beyond its values."""
    low, high = min(values), max(values)
    span = _span(low, high)
    near = [v for v in limits if low - FAR * span <= v <= high + FAR * span]
    low, high = min([low, *near]), max([high, *near])
    span = _span(low, high)
    return low - AROUND * span, high + AROUND * span


def _span(low: float, high: float) -> float:
    """Return how far two ends lie apart; where that is nothing to speak of, half of their size."""
    return high - low if high - low > SAME * max(abs(low), abs(high)) else 0.5 * abs(high) or 1.0


def _even(low: float, high: float) -> list[float]:
    """Return some six round numbers between two."""
    rough = (high - low) / 8
    power = 10.0 ** floor(log10(rough))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= rough), 10 * power)
    return [i * step for i in range(ceil(low / step), floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return powers of ten between two numbers, with 2 and 5 times them where there are few."""
    wide = log10(high / low)
    every = max(1, ceil(wide / 6))
    steps = (1.0, 2.0, 5.0) if wide < 2.6 else (1.0,)
    powers = range(floor(log10(low)), ceil(log10(high)) + 1, every)
    found = [m * 10.0**power for power in powers for m in steps]
    return [value for value in found if low <= value <= high]
