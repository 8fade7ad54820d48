"""Words beside the points of a plot, placed so that none covers another word or a point."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LETTER, LINE = 6.4, 13.0  # the room of a letter, and of a line [px]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Label:
    """Words for a point, and where they stand: their anchor and the start of their line."""

    x: float
    y: float
    anchor: str


def wide(words: str) -> float:
    """Return about how wide words are [px]."""
    return LETTER * len(words)


def around(x: float, y: float, room: float = 5.0) -> Box:
    """Return the square around a point that no word may cover."""
    return (x - room, y - room, x + room, y + room)


def placed(
    points: Sequence[tuple[float, float, str]], taken: Iterable[Box], bounds: Box
) -> list[Label | None]:
    """Return a place for the words of each point (x, y, words); None where there is no room.

    Law: the boxes of placed words overlap neither each other, nor what is taken, nor the bounds.
    The first points choose first.
    """
    full, found = list(taken), list[Label | None]()
    for x, y, words in points:
        fits = (
            (label, box)
            for label in _candidates(x, y)
            for box in [box_of(label, words)]
            if _inside(box, bounds) and not any(_overlap(box, other) for other in full)
        )
        label, box = next(fits, (None, None))
        found.append(label)
        if box is not None:
            full.append(box)
    return found


def box_of(label: Label, words: str) -> Box:
    """Return the room that words take at their place."""
    long = wide(words)
    left = label.x - {"start": 0.0, "middle": long / 2, "end": long}[label.anchor]
    return (left, label.y - LINE * 0.8, left + long, label.y + LINE * 0.2)


def _candidates(x: float, y: float) -> Iterable[Label]:
    """Yield the places around a point, the best first."""
    for far in (9.0, 15.0, 24.0):
        yield Label(x + far, y + 4, "start")
        yield Label(x + far * 0.7, y - far * 0.7, "start")
        yield Label(x - far, y + 4, "end")
        yield Label(x - far * 0.7, y - far * 0.7, "end")
        yield Label(x, y - far, "middle")
        yield Label(x - far * 0.7, y + far * 0.7 + 9, "end")
        yield Label(x, y + far + 9, "middle")
        yield Label(x + far * 0.7, y + far * 0.7 + 9, "start")


def _inside(box: Box, bounds: Box) -> bool:
    """Return whether a box lies in the bounds."""
    return (
        box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]
    )


def _overlap(a: Box, b: Box) -> bool:
    """Return whether two boxes share room."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
