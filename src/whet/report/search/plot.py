"""The plot of a search: damage against size, and against speed; every model leads to its row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from whet.report import words as say
from whet.report.figures import EMPTY
from whet.report.search import labels
from whet.report.search.axes import Axis, linear, logarithmic
from whet.report.search.found import Limit, Mark, Search, known
from whet.report.search.tables import considered, mark_name, speed
from whet.report.svg import WIDE, drawing, element, hover, text

LEFT, RIGHT, TOP, BOTTOM = 66.0, WIDE - 8, 40.0, 390.0
NEAR = 2.5  # times the chosen number: what lies further away is left to the tables
RANK = {"chosen": 0, "trial": 1, "uniform": 2, "point": 3}
DESCENT = "the predicted frontier"


@dataclass(frozen=True, slots=True)
class View:
    """What lies along the axis from left to right; `letter` begins the names of its points."""

    fact: str
    letter: str
    label: str
    scale: float

    def of(self, mark: Mark) -> float | None:
        """Return where a model lies."""
        found = mark.size if self.fact == "size" else mark.decode
        return None if found is None else found * self.scale


def marks(search: Search) -> tuple[Mark, ...]:
    """Return the models that can be in the plot; the place of one here is the number of its row."""
    return (*considered(search), *search.frontier)


def placed(search: Search) -> frozenset[int]:
    """Return the numbers of the models that the plot by size has."""
    found = _shown(search, _size_view(search))
    return frozenset(point[0] for point in found) if len(found) > 1 else frozenset()


def by_size(search: Search) -> Markup:
    """Return the KL of each model against its size."""
    return _plot(search, _size_view(search))


def by_speed(search: Search) -> Markup:
    """Return the KL of each model against its speed of generation."""
    return _plot(search, View("decode", "q", "generation [token/s]", 1.0))


def highlights(search: Search) -> str:
    """Return the rules that light up the row of a point, and the points of a row."""
    rules = [
        f"main:has(#p{i}:hover,#p{i}:focus-visible,#q{i}:hover,#q{i}:focus-visible) #r{i},"
        f"#r{i}:hover,#r{i}:target{{background:var(--lit)}}"
        f"main:has(#r{i}:hover,#r{i}:target) :is(#p{i},#q{i}) .halo{{fill:var(--accent)}}"
        for i in range(len(marks(search)))
    ]
    return "\n".join(rules)


def _size_view(search: Search) -> View:
    """Return the view by size, in the unit that the largest has."""
    most = max((mark.size for mark in marks(search) if mark.size), default=1.0)
    unit, scale = next(
        ((unit, scale) for unit, scale in (("GB", 1e-9), ("MB", 1e-6)) if most * scale >= 1),
        ("kB", 1e-3),
    )
    return View("size", "p", f"size [{unit}]", scale)


def _plot(search: Search, view: View) -> Markup:
    """Return a view, or nothing where fewer than two models can be placed in it."""
    shown = _shown(search, view)
    if len(shown) < 2:
        return EMPTY
    bounds = _bounds(search, view)
    across = linear([s[2] for s in shown], [v for v, _ in bounds[0]], LEFT, RIGHT)
    down = logarithmic([s[3] for s in shown], [v for v, _ in bounds[1]], BOTTOM, TOP)
    points = [(i, mark, across.at(x), down.at(kl)) for i, mark, x, kl in shown]
    line = [(x, y) for _, mark, x, y in points if mark.kind == "point"]
    walls, taken = _walls(bounds, across, down)
    drawn = [*_grid(across, down, view), *walls, *_curve(line), *_models(points, line, taken, view)]
    return drawing(
        BOTTOM + 66, f"KL against {view.label} of the models considered", *drawn,
        _key({mark.kind for _, mark, _, _ in points}), role="group",
    )  # fmt: skip


def _shown(search: Search, view: View) -> list[tuple[int, Mark, float, float]]:
    """Return the models of a view: their number, where they lie and their KL.

    What is far from the result is no part of it, but for trials.
    """
    here = view.of(search.chosen)
    return [
        (i, mark, x, mark.kl)
        for i, mark in enumerate(marks(search))
        for x in [view.of(mark)]
        if x is not None
        and mark.kl is not None
        and (here is None or here / NEAR <= x <= here * NEAR or mark.kind == "trial")
    ]


Bounds = tuple[list[tuple[float, Limit]], list[tuple[float, Limit]]]


def _bounds(search: Search, view: View) -> Bounds:
    """Return the limits that are lines in a view: those of its axis, and those of KL."""
    every = [(known(limit.limit.value), limit) for limit in search.limits if limit.limit]
    upright = [(v * view.scale, limit) for v, limit in every if v and limit.name == view.fact]
    return upright, [(v, limit) for v, limit in every if v and limit.name == "kl"]


def _walls(bounds: Bounds, across: Axis, down: Axis) -> tuple[list[Markup], list[labels.Box]]:
    """Return the limits as lines with the side that is not allowed, and the room of their words."""
    drawn: list[Markup] = []
    taken: list[labels.Box] = []
    for value, limit in bounds[0]:
        if across.holds(value):
            x, right = across.at(value), RIGHT if limit.most else LEFT
            drawn.append(_beyond(min(x, right), TOP, abs(right - x), BOTTOM - TOP))
            drawn.append(_wall(x, x, TOP, BOTTOM))
            end = x + labels.wide(limit.text) > RIGHT
            drawn.append(text(x, TOP - 7, limit.text, "tag", "end" if end else "start"))
            taken.append((x - 3, TOP, x + 3, BOTTOM))
    for value, limit in bounds[1]:
        if down.holds(value):
            y, edge = down.at(value), TOP if limit.most else BOTTOM
            drawn.append(_beyond(LEFT, min(y, edge), RIGHT - LEFT, abs(edge - y)))
            drawn.append(_wall(LEFT, RIGHT, y, y))
            drawn.append(text(RIGHT - 4, y - 6, limit.text, "tag", "end"))
            taken += [(RIGHT - 8 - labels.wide(limit.text), y - 18, RIGHT, y)]
            taken += [(LEFT, y - 3, RIGHT, y + 3)]
    return drawn, taken


def _beyond(x: float, y: float, width: float, height: float) -> Markup:
    """Return the tint over what a limit does not allow."""
    return element("rect", x=x, y=y, width=width, height=height, class_="beyond")


def _wall(x1: float, x2: float, y1: float, y2: float) -> Markup:
    """Return the line of a limit."""
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_="limit")


def _grid(across: Axis, down: Axis, view: View) -> list[Markup]:
    """Return the lines of both axes, their numbers and what they are."""
    drawn: list[Markup] = []
    for value in across.marks():
        x = across.at(value)
        drawn.append(element("line", x1=x, x2=x, y1=TOP, y2=BOTTOM, class_="rule"))
        drawn.append(text(x, BOTTOM + 18, say.trimmed(say.significant(value)), "mark", "middle"))
    for value in down.marks():
        y = down.at(value)
        drawn.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="rule"))
        drawn.append(text(LEFT - 10, y + 4, say.trimmed(say.significant(value)), "mark", "end"))
    drawn.append(text(RIGHT, BOTTOM + 36, view.label, "name", "end"))
    drawn.append(text(0.0, TOP - 24, "KL to the original [nat], logarithmic", "name"))
    return drawn


def _curve(line: Sequence[tuple[float, float]]) -> list[Markup]:
    """Return the frontier."""
    if len(line) < 2:
        return []
    return [element("path", d="M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in line), class_="line")]


Point = tuple[int, Mark, float, float]


def _models(
    points: Sequence[Point],
    line: Sequence[tuple[float, float]],
    taken: Iterable[labels.Box],
    view: View,
) -> Iterable[Markup]:
    """Return the models, those that matter most above the others."""
    ordered = sorted(points, key=lambda point: RANK[point[1].kind])
    named = [(x, y, mark_name(mark)) for _, mark, x, y in ordered if mark.kind != "point"]
    full = [*taken, *(labels.around(x, y) for _, _, x, y in points), *_along(line)]
    places = labels.placed(named, full, (LEFT, TOP, RIGHT, BOTTOM))
    found = [*places, *([None] * (len(ordered) - len(places)))]
    drawn = [_model(point, label, view) for point, label in zip(ordered, found, strict=True)]
    return reversed(drawn)


def _along(line: Sequence[tuple[float, float]]) -> Iterable[labels.Box]:
    """Yield small squares along a line, so that words keep off it."""
    for (x1, y1), (x2, y2) in pairwise(line):
        many = int(max(abs(x2 - x1), abs(y2 - y1)) / 6) + 1
        for i in range(many):
            share = i / many
            yield labels.around(x1 + share * (x2 - x1), y1 + share * (y2 - y1), 2.0)


def _model(point: Point, label: labels.Label | None, view: View) -> Markup:
    """Return a model: its shape, its words, what it has; it leads to its row."""
    i, mark, x, y = point
    halo = element("circle", cx=x, cy=y, r=11, class_="halo")
    inside = [hover(told(mark)), halo, _shape(mark.kind, x, y)]
    if label is not None:
        kind = "strong" if mark.kind == "chosen" else "tag"
        inside.append(text(label.x, label.y, mark_name(mark), kind, label.anchor))
    return element("a", *inside, id=f"{view.letter}{i}", href=f"#r{i}", class_="model")


def _shape(kind: str, x: float, y: float) -> Markup:
    """Return the shape of a kind of model: a ring, a disc, a diamond, a dot."""
    if kind == "chosen":
        return element("circle", cx=x, cy=y, r=7, class_="shape result")
    if kind == "trial":
        return element("circle", cx=x, cy=y, r=5, class_="shape trial")
    if kind == "uniform":
        r = 5.5
        corners = ((x, y - r), (x + r, y), (x, y + r), (x - r, y))
        path = "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in corners) + " Z"
        return element("path", d=path, class_="shape uniform")
    return element("circle", cx=x, cy=y, r=3, class_="shape dot")


def told(mark: Mark) -> str:
    """Return what a model has, in one line."""
    parts = [mark_name(mark)]
    parts += [say.size(mark.size)] if mark.size else []
    parts += [f"KL {say.significant(mark.kl)} nat"] if mark.kl else []
    parts += [speed(mark.decode)] if mark.decode else []
    return ", ".join(parts)


def _key(kinds: Iterable[str]) -> Markup:
    """Return which shape is what."""
    names = {"chosen": "the result", "trial": "trials", "uniform": "one level everywhere"}
    names |= {"point": DESCENT}
    x, drawn, there = LEFT, list[Markup](), set(kinds)
    for kind, name in names.items():
        if kind in there:
            drawn.append(_shape(kind, x + 6, BOTTOM + 54))
            drawn.append(text(x + 18, BOTTOM + 58, name, "mark"))
            x += 18 + labels.wide(name) + 26
    return element("g", *drawn)
