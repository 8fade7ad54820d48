"""The figures of a report, each a function of the evidence; without facts, an empty text."""

from collections.abc import Sequence
from math import ceil, floor, fsum, isfinite, log10

from markupsafe import Markup

from whet.report import words as say
from whet.report.evidence import Evidence, Module
from whet.report.resources import Part, parts, phases
from whet.report.svg import DEEP, STEPS, WIDE, drawing, element, ends, hover, ramp, round_up, text
from whet.report.tables import percentiles

LEFT = 150.0  # room for the names of rows
EMPTY = Markup("")
Ends = tuple[float, float]  # of an axis in the drawing


def heat_map(e: Evidence) -> Markup:
    """Return the output error of each projection in each layer."""
    cells: dict[tuple[str, int], list[Module]] = {}
    for module in e.modules:
        if module.layer is not None and module.error is not None:
            cells.setdefault((module.column, module.layer), []).append(module)
    span = ends(module.error or 0.0 for group in cells.values() for module in group)
    if span is None:
        return EMPTY
    rows = list(dict.fromkeys(row for row, _ in cells))
    layers = sorted({layer for _, layer in cells})
    wide, high = min(max((WIDE - LEFT) / len(layers), 6.0), 58.0), 30.0
    drawn = [
        _cell(group, LEFT + layers.index(layer) * wide, rows.index(row) * high, (wide, high), span)
        for (row, layer), group in cells.items()
    ]
    names = [text(LEFT - 12, i * high + 20, row, "name", "end") for i, row in enumerate(rows)]
    foot = len(rows) * high + 18
    marks = _layer_marks(layers, wide, foot)
    legend = _legend(span, foot + 26, e.error_is)
    width = max(LEFT + wide * len(layers) + 4, WIDE)
    return drawing(
        foot + 70,
        "Output error of each projection in each layer",
        *names,
        *drawn,
        *marks,
        legend,
        width=width,
    )


def _cell(
    group: Sequence[Module],
    x: float,
    y: float,
    sizes: tuple[float, float],
    span: tuple[float, float],
) -> Markup:
    """Return one cell; the experts of a layer share it, and the worst of them colours it."""
    errors = [module.error or 0.0 for module in group]
    worst = max(errors, key=lambda error: error if isfinite(error) else float("inf"))
    first, step = group[0], ramp(worst, *span)
    told = f"layer {first.layer}, {first.column}: {say.percent(worst)}"
    if len(group) > 1:
        told += f" (worst of {len(group)}, mean {say.percent(fsum(errors) / len(errors))})"
    told += f" · {first.format}, {first.method}"
    box = element(
        "rect", x=x + 1, y=y + 1, width=sizes[0] - 2, height=sizes[1] - 2, rx=2, class_=f"h{step}"
    )
    inside = [box]
    if sizes[0] >= 44:
        ink = "high-ink" if step >= DEEP else "low-ink"
        inside.append(
            text(x + sizes[0] / 2, y + 19.5, say.significant(100 * worst, 2), ink, "middle")
        )
    return element("g", hover(told), *inside)


def _layer_marks(layers: Sequence[int], wide: float, y: float) -> list[Markup]:
    """Return the numbers of the layers, as many as there is room for."""
    every = _every(wide, 20.0)
    marks = [
        text(LEFT + (i + 0.5) * wide, y, str(layer), "mark", "middle")
        for i, layer in enumerate(layers)
        if layer % every == 0
    ]
    return [*marks, text(LEFT - 12, y, "layer", "mark", "end")]


def _legend(span: tuple[float, float], y: float, how: str) -> Markup:
    """Return the ramp of colours with its ends and its middle, and what the numbers are."""
    each = 10.0
    boxes = [
        element("rect", x=LEFT + i * each, y=y, width=each + 0.5, height=10, class_=f"h{i}")
        for i in range(STEPS)
    ]
    middle = (span[0] * span[1]) ** 0.5
    places = ((0.0, span[0], "start"), (0.5, middle, "middle"), (1.0, span[1], "end"))
    marks = [
        text(LEFT + share * each * STEPS, y + 26, say.percent(value, 2), "mark", anchor)
        for share, value, anchor in places
    ]
    told = text(LEFT + each * STEPS + 16, y + 9, how, "mark")
    return element("g", *boxes, *marks, told)


def depth(e: Evidence) -> Markup:
    """Return how the error of the hidden states grows from block to block."""
    points = [(layer, drift) for layer, drift, _ in e.depth if isfinite(drift)]
    if len(points) < 2:
        return EMPTY
    across, down = (62.0, WIDE - 70), (18.0, 220.0)
    high = round_up(max(drift for _, drift in points))
    places = _placed(points, high, across, down)
    drawn = [*_grid(high, across, down), *_curve(places, down[1])]
    drawn += [_dot(place, point) for place, point in zip(places, points, strict=True)]
    drawn += _block_marks(points, places, down[1] + 20)
    drawn.append(text(sum(across) / 2, down[1] + 42, "block", "mark", "middle"))
    (x, y), told = places[-1], say.percent(points[-1][1], 2)
    drawn.append(text(x + 12, y + 4, told, "strong"))
    return drawing(
        down[1] + 50, "Relative squared error of the hidden states after each block", *drawn
    )


def _placed(
    points: Sequence[tuple[int, float]], high: float, across: Ends, down: Ends
) -> list[tuple[float, float]]:
    """Return where the points of a line lie in the drawing; `high` is the end of its axis."""
    first, last = points[0][0], points[-1][0]
    return [
        (
            across[0] + (layer - first) / (last - first) * (across[1] - across[0]),
            down[1] - drift / high * (down[1] - down[0]),
        )
        for layer, drift in points
    ]


def _curve(places: Sequence[tuple[float, float]], foot: float) -> list[Markup]:
    """Return the line through the places, and the area between it and the axis."""
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    closed = f"{path} L{places[-1][0]:.1f} {foot:.1f} L{places[0][0]:.1f} {foot:.1f} Z"
    return [element("path", d=closed, class_="area"), element("path", d=path, class_="line")]


def _block_marks(
    points: Sequence[tuple[int, float]], places: Sequence[tuple[float, float]], y: float
) -> list[Markup]:
    """Return the numbers of the blocks, as many as there is room for."""
    every = _every((places[-1][0] - places[0][0]) / len(points), 24.0)
    return [
        text(x, y, str(layer), "mark", "middle")
        for (x, _), (layer, _) in zip(places, points, strict=True)
        if layer % every == 0
    ]


def _every(each: float, room: float) -> int:
    """Return of how many marks, `each` apart, one is shown so that every one has its room."""
    return next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if step * each >= room)


def _dot(place: tuple[float, float], point: tuple[int, float]) -> Markup:
    """Return a point of the line, with its value on hover."""
    told = f"after block {point[0]}: {say.percent(point[1])}"
    halo = element("circle", cx=place[0], cy=place[1], r=9, class_="halo")
    return element(
        "g", hover(told), halo, element("circle", cx=place[0], cy=place[1], r=3, class_="dot")
    )


def _grid(high: float, across: Ends, down: Ends) -> list[Markup]:
    """Return the horizontal lines of a chart and their values [%]."""
    lines: list[Markup] = []
    for quarter in range(5):
        y = down[1] - quarter / 4 * (down[1] - down[0])
        lines.append(element("line", x1=across[0], x2=across[1], y1=y, y2=y, class_="rule"))
        if quarter % 2 == 0:
            lines.append(
                text(across[0] - 10, y + 4, say.percent(high * quarter / 4, 2), "mark", "end")
            )
    return lines


def size_bars(e: Evidence) -> Markup:
    """Return the sizes of the parts of the model before and after, on one scale."""
    known = parts(e)
    whole = max(fsum(p.before for p in known), fsum(p.after for p in known)) if known else 0.0
    if not whole:
        return EMPTY
    scale = (WIDE - LEFT - 90) / whole
    bars = [
        _stack([(p, getattr(p, when)) for p in known], when, 4.0 + i * 46, scale)
        for i, when in enumerate(("before", "after"))
    ]
    return drawing(
        126, "Sizes of the parts of the model before and after", *bars, _key(known, 116.0)
    )


def _stack(sizes: Sequence[tuple[Part, float]], when: str, y: float, scale: float) -> Markup:
    """Return one bar made of parts."""
    x, drawn = LEFT, [text(LEFT - 12, y + 23, when, "name", "end")]
    for i, (part, nbytes) in enumerate(sizes):
        box = element(
            "rect", x=x, y=y, width=max(nbytes * scale - 1, 0.0), height=36, class_=f"c{i}"
        )
        drawn.append(element("g", hover(f"{part.name}, {when}: {say.size(nbytes)}"), box))
        x += nbytes * scale
    whole = fsum(nbytes for _, nbytes in sizes)
    return element("g", *drawn, text(x + 10, y + 23, say.size(whole), "strong"))


def _key(known: Sequence[Part], y: float) -> Markup:
    """Return which colour is which part."""
    x, drawn = LEFT, [EMPTY]
    for i, part in enumerate(known):
        drawn.append(element("rect", x=x, y=y - 10, width=11, height=11, rx=2, class_=f"c{i}"))
        drawn.append(text(x + 17, y, part.name, "mark"))
        x += 17 + 7.2 * len(part.name) + 22
    return element("g", *drawn)


def bars(rows: Sequence[tuple[str, float, str]], label: str, left: float) -> Markup:
    """Return one bar a row: (name, value, value as text)."""
    good = [value for _, value, _ in rows if isfinite(value) and value > 0]
    if not good:
        return EMPTY
    scale, each = (WIDE - left - 130) / max(good), 28.0
    drawn = [_bar(row, i * each, left, scale) for i, row in enumerate(rows)]
    return drawing(len(rows) * each + 2, label, *drawn)


def _bar(row: tuple[str, float, str], y: float, left: float, scale: float) -> Markup:
    """Return one bar with its name and its value."""
    name, value, told = row
    long = max(value * scale, 1.5) if isfinite(value) and value > 0 else 0.0
    box = element("rect", x=left, y=y + 6, width=long, height=16, rx=2, class_="bar")
    words = text(left - 12, y + 19, name, "name", "end")
    return element(
        "g", hover(f"{name}: {told}"), box, words, text(left + long + 10, y + 19, told, "mark")
    )


def kl_points(e: Evidence) -> Markup:
    """Return the distribution of KL over tokens as points on a logarithmic axis."""
    rows = [(name, kl) for name, kl in percentiles(e) if isfinite(kl) and kl > 0]
    if len(rows) < 2:
        return EMPTY
    low = floor(log10(rows[0][1]))
    high = max(ceil(log10(rows[-1][1])), low + 1)
    left, right, each, foot = 260.0, WIDE - 90, 26.0, len(rows) * 26.0
    scale = (right - left) / (high - low)
    lines: list[Markup] = []
    for power in range(low, high + 1):
        x = left + (power - low) * scale
        lines.append(element("line", x1=x, x2=x, y1=0.0, y2=foot, class_="rule"))
        lines.append(text(x, foot + 18, f"{10.0**power:g}", "mark", "middle"))
    lines.append(text(right + 16, foot + 18, "nat", "mark"))
    points = [
        _point(name, kl, left + (log10(kl) - low) * scale, (i + 0.5) * each, left)
        for i, (name, kl) in enumerate(rows)
    ]
    return drawing(foot + 26, "How much the predictions of tokens change", *lines, *points)


def _point(name: str, kl: float, x: float, y: float, left: float) -> Markup:
    """Return one row of the distribution: its name, its point, its value."""
    told = say.significant(kl)
    words = text(left - 16, y + 4, name, "name", "end")
    line = element("line", x1=left, x2=x, y1=y, y2=y, class_="stem")
    dot = element("circle", cx=x, cy=y, r=4, class_="dot")
    return element(
        "g", hover(f"{name}: {told} nat"), words, line, dot, text(x + 12, y + 4, told, "mark")
    )


def time_bars(e: Evidence) -> Markup:
    """Return the time of each phase."""
    rows = [(name.replace("_", " "), seconds, say.duration(seconds)) for name, seconds in phases(e)]
    return bars(rows, "Time of each phase", 190.0) if rows else EMPTY
