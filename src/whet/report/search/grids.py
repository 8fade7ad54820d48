"""Layers × kinds of units as heat maps: which level each unit got, and how sensitive it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from whet.report import words as say
from whet.report.figures import EMPTY
from whet.report.search.found import Search, Unit
from whet.report.search.labels import LETTER
from whet.report.svg import DEEP, STEPS, WIDE, drawing, element, ends, hover, ramp, text

LEFT, GAP, HEAD, FOOT = 58.0, 34.0, 66.0, 44.0
NARROW = 0.88  # the share of their room that letters of names leave to the smaller ones
BESIDE = 6  # as many columns fit twice beside each other


@dataclass(frozen=True, slots=True)
class Look:
    """What a heat map shows: its heading, the words and the colour of a unit, its ramp."""

    heading: str
    words: Callable[[Unit], str]
    step: Callable[[Unit], int | None]
    letter: str
    ends: tuple[str, str]


def allocation(search: Search) -> Markup:
    """Return the chosen level of each unit, beside how sensitive it is; narrow maps share a row."""
    looks = [look for look in (_levels(search), _sensitivity(search)) if look is not None]
    if not looks or not search.units:
        return EMPTY
    beside = len(looks) == 2 and len(search.columns) <= BESIDE
    room = (WIDE - LEFT - GAP) / 2 if beside else WIDE - LEFT
    wide = min(max(room / max(len(search.columns), 1), 11.0), 190.0)
    long = wide * max(len(search.columns), 1)
    high = _high(search)
    each = HEAD + high * len(_rows(search)) + FOOT
    drawn = [
        _map(search, look, (LEFT + i * (room + GAP), 0.0) if beside else (LEFT, i * each), wide)
        for i, look in enumerate(looks)
    ]
    names = [name for i in range(1 if beside else len(looks)) for name in _names(search, i * each)]
    label = "The chosen level and the sensitivity of each unit"
    return drawing(
        each if beside else each * len(looks), label, *names, *drawn, width=max(LEFT + long, WIDE)
    )


def _levels(search: Search) -> Look | None:
    """Return the look of the chosen levels: the more bits, the deeper the colour."""
    bits = [unit.bits for unit in search.units if unit.bits]
    if not bits:
        return Look("chosen level", _level, lambda _: 0, "b", ("", ""))
    low, high = min(bits), max(bits)

    def step(unit: Unit) -> int | None:
        if unit.bits is None:
            return None
        share = (unit.bits - low) / (high - low) if high > low else 0.4
        return round((0.08 + 0.92 * share) * (STEPS - 1))

    places = (f"{say.significant(low)} bit", f"{say.significant(high)} bit per weight")
    return Look("chosen level, by stored bits per weight", _level, step, "b", places)


def _level(unit: Unit) -> str:
    """Return what stands in the cell of a unit."""
    return unit.level


def _sensitivity(search: Search) -> Look | None:
    """Return the look of what the standard level costs in each unit."""
    span = ends(unit.sensitivity or 0.0 for unit in search.units)
    if span is None:
        return None
    standards = list(dict.fromkeys(u.standard for u in search.units if u.standard))
    at = standards[0] if len(standards) == 1 else "the standard level"
    return Look(
        f"sensitivity: KL at {at} [nat]",
        lambda unit: say.significant(unit.sensitivity, 2) if unit.sensitivity else "",
        lambda unit: ramp(unit.sensitivity, *span) if unit.sensitivity else None,
        "h",
        (say.significant(span[0], 2), f"{say.significant(span[1], 2)} nat"),
    )


def _rows(search: Search) -> list[int | str]:
    """Return the rows: units before the layers, the layers, the head."""
    alone = [unit.site for unit in search.units if unit.layer is None]
    last = [site for site in alone if site == "head"]
    return [*(site for site in alone if site != "head"), *search.layers, *last]


def _high(search: Search) -> float:
    """Return the height of a row: lower where there are many."""
    many = len(search.layers)
    return 28.0 if many <= 16 else 21.0 if many <= 40 else 15.0


def _names(search: Search, top: float) -> list[Markup]:
    """Return the names of the rows."""
    high = _high(search)
    kinds = {True: "mark", False: "name"}
    return [
        text(LEFT - 12, top + HEAD + (i + 0.5) * high + 4, str(row), kinds[high < 20], "end")
        for i, row in enumerate(_rows(search))
    ] + [text(LEFT - 12, top + HEAD - 10, "layer", "mark", "end")] * bool(search.layers)


def _map(search: Search, look: Look, corner: tuple[float, float], wide: float) -> Markup:
    """Return one heat map."""
    rows, high, columns = _rows(search), _high(search), search.columns
    drawn = [text(corner[0], corner[1] + 16, look.heading, "strong"), *_heads(search, corner, wide)]
    for unit in search.units:
        row: int | str = unit.site if unit.layer is None else unit.layer
        y = corner[1] + HEAD + rows.index(row) * high
        if unit.layer is None:
            box = (corner[0], y, wide * max(len(columns), 1), high)
        else:
            box = (corner[0] + columns.index(unit.column) * wide, y, wide, high)
        drawn.append(_cell(unit, look, box))
    return element("g", *drawn, _legend(look, corner[0], corner[1] + HEAD + high * len(rows) + 14))


def _heads(search: Search, corner: tuple[float, float], wide: float) -> list[Markup]:
    """Return the names of the columns, and below them what they are made of."""
    roles = {unit.column: unit.role for unit in reversed(search.units)}
    drawn: list[Markup] = []
    for i, column in enumerate(search.columns):
        x, y = corner[0] + (i + 0.5) * wide, corner[1] + HEAD - 10
        parts = [part.rpartition(".")[2] for part in roles[column].split("+")]
        for words, up, kind in ((column, 15, "name"), (" + ".join(parts), 0, "mark")):
            if told := _fitted(words[::-1], (wide - 6) * NARROW)[::-1]:
                drawn.append(element("g", hover(words), text(x, y - up, told, kind, "middle")))
    return drawn


def _fitted(words: str, room: float) -> str:
    """Return words cut to the room there is; nothing where hardly a word would be left."""
    most = int(room / LETTER)
    if len(words) <= most:
        return words
    return f"{words[: most - 1]}…" if most >= 5 else ""


def _cell(unit: Unit, look: Look, box: tuple[float, float, float, float]) -> Markup:
    """Return the cell of a unit."""
    x, y, wide, high = box
    step = look.step(unit)
    kind = f"{look.letter}{step}" if step is not None else "none"
    room = 1.0 if wide > 20 else 0.5
    inside: list[Markup] = [
        hover(told(unit)),
        element(
            "rect", x=x + room, y=y + room, width=wide - 2 * room, height=high - 2 * room,
            rx=2 if wide > 20 else 0, class_=kind,
        ),
    ]  # fmt: skip
    if words := _fitted(look.words(unit), wide - 6):
        depth = "low" if step is None or step < DEEP else "high"
        ink = f"cool-{depth}" if look.letter == "b" else f"{depth}-ink"
        inside.append(text(x + wide / 2, y + high / 2 + 4, words, ink, "middle"))
    return element("g", *inside)


def told(unit: Unit) -> str:
    """Return what is known of a unit, in one line."""
    parts = [f"{unit.site} ({unit.role}): {unit.level}"]
    parts[0] += f" by {unit.method}" if unit.method else ""
    parts += [f"{say.significant(unit.bits)} bit per weight"] if unit.bits else []
    parts += [say.size(unit.nbytes)] if unit.nbytes else []
    parts += [f"KL {say.significant(unit.kl)} nat"] if unit.kl else []
    if unit.sensitivity:
        at = unit.standard or "the standard level"
        parts.append(f"{say.significant(unit.sensitivity)} nat at {at}")
    return ", ".join(parts)


def _legend(look: Look, x: float, y: float) -> Markup:
    """Return the ramp with its ends."""
    if not look.ends[1]:
        return EMPTY
    start = x + LETTER * len(look.ends[0]) + 10
    boxes = [
        element("rect", x=start + i * 6.0, y=y, width=6.5, height=10, class_=f"{look.letter}{i}")
        for i in range(STEPS)
    ]
    low = text(start - 8, y + 9, look.ends[0], "mark", "end")
    return element("g", low, *boxes, text(start + STEPS * 6.0 + 8, y + 9, look.ends[1], "mark"))


def refinement(points: Sequence[tuple[float, float]]) -> Markup:
    """Return the best KL after each generation."""
    if len(points) < 2:
        return EMPTY
    low, high = min(kl for _, kl in points), max(kl for _, kl in points)
    left, right, top, foot = 70.0, WIDE - 130, 16.0, 116.0
    across = (right - left) / (points[-1][0] - points[0][0])
    down = (foot - top) / (high - low) if high > low else 0.0
    places = [(left + (n - points[0][0]) * across, foot - (kl - low) * down) for n, kl in points]
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    every = max(1, -(-len(points) // 24))
    drawn = [element("line", x1=left, x2=right, y1=foot, y2=foot, class_="rule")]
    drawn.append(element("path", d=path, class_="line"))
    for i, ((x, y), (number, kl)) in enumerate(zip(places, points, strict=True)):
        words = f"generation {number:.0f}: KL {say.significant(kl)} nat"
        halo = element("circle", cx=x, cy=y, r=8, class_="halo")
        dot = element("circle", cx=x, cy=y, r=3, class_="dot")
        drawn.append(element("g", hover(words), halo, dot))
        if i % every == 0:
            drawn.append(text(x, foot + 20, f"{number:.0f}", "mark", "middle"))
    (x, y), kl = places[-1], points[-1][1]
    drawn.append(text(x + 12, y + 4, f"{say.significant(kl)} nat", "strong"))
    drawn.append(text(left - 10, places[0][1] + 4, say.significant(points[0][1]), "mark", "end"))
    drawn.append(text(right, foot + 38, "generation", "mark", "end"))
    return drawing(foot + 44, "Best KL after each generation of the refinement", *drawn)
