"""Drawings as text: elements with escaped attributes, linear scales, a ramp of colours."""

from collections.abc import Iterable
from math import isfinite, log10

from markupsafe import Markup, escape

from whet.report.words import Number

STEPS = 24  # colours of the ramp, defined as .h0 … .h23 in the page's style
DEEP = 14  # the step from which words on a colour have the other ink
WIDE = 960.0  # the width that drawings are laid out on


def element(name: str, *inside: str, **attributes: object) -> Markup:
    """Return an element; text inside is escaped unless it is markup, `_` in names becomes `-`."""
    pairs = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = "".join(escape(part) for part in inside)
    return Markup(f"<{name}{''.join(pairs)}>{body}</{name}>")


def _number(value: object) -> str:
    """Return a coordinate with one digit after the point, anything else as text."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def text(x: Number, y: Number, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Return words at a place."""
    return element("text", words, x=x, y=y, class_=kind or None, text_anchor=anchor)


def hover(words: str) -> Markup:
    """Return what is shown when the pointer rests on the element around it."""
    return element("title", words)


def drawing(
    height: Number, label: str, *inside: str, width: Number = WIDE, role: str = "img"
) -> Markup:
    """Return a whole drawing, which shrinks with the page; `label` says what it shows.

    The role is "group" where parts of it are links, so that these are read out too.
    """
    return element(
        "svg", hover(label), *inside, viewBox=f"0 0 {width:.0f} {height:.0f}", width=f"{width:.0f}",
        role=role, aria_label=label, class_="figure",
    )  # fmt: skip


def ramp(value: float, low: float, high: float) -> int:
    """Return the step of the colour ramp for a value on a logarithmic scale."""
    if not (isfinite(value) and value > 0) or high <= low:
        return 0 if value <= 0 or high <= low else STEPS - 1
    share = (log10(value) - log10(low)) / (log10(high) - log10(low))
    return round(min(max(share, 0.0), 1.0) * (STEPS - 1))


def ends(values: Iterable[float]) -> tuple[float, float] | None:
    """Return the least and the greatest positive finite value, or None."""
    good = [value for value in values if isfinite(value) and value > 0]
    return (min(good), max(good)) if good else None


def round_up(value: float) -> float:
    """Return the next number that reads well as the end of an axis."""
    if not (isfinite(value) and value > 0):
        return 1.0
    power = 10.0 ** int(log10(value) // 1)
    return next(
        (m * power for m in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8) if m * power >= value * 0.9999),
        10 * power,
    )
