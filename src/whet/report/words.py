"""Numbers and sizes as people read them."""

import re
from collections.abc import Sequence
from math import floor, isfinite, isnan, log10

Number = int | float
UNITS = ("byte", "kB", "MB", "GB", "TB", "PB")
SHORT_SIZES = ("", "k", "M", "G", "T")


def significant(value: Number, digits: int = 3) -> str:
    """Return a number with so many significant digits, never in the notation of programmers."""
    if not isfinite(value):
        return "not a number" if isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if power < -5 or power > 14:
        return minus(f"{value:.{digits - 1}e}".partition("e")[0] + f" × 10{superscript(power)}")
    return minus(f"{value:,.{min(max(digits - 1 - power, 0), 12)}f}")


def trimmed(text: str) -> str:
    """Return a number, with its unit, without zeros at its end that say nothing: `4.6 MB`."""
    return re.sub(r"\.(?!\d)", "", re.sub(r"(\.\d*?)0+(?!\d)", r"\1", text))


def aligned(values: Sequence[Number | None], digits: int = 3) -> list[str]:
    """Return the numbers of a column with equally many digits after the point, a dash for None.

    The greatest has `digits` significant digits, and the least of them at least two.
    """
    good = [abs(v) for v in values if v is not None and isfinite(v) and v]
    if not good or max(good) > 1e4 * min(good) or max(good) >= 1e12 or min(good) < 1e-9:
        return ["–" if v is None else significant(v, digits) for v in values]
    places = max(digits - 1 - floor(log10(max(good))), 1 - floor(log10(min(good))), 0)
    return [
        "–" if v is None else minus(f"{v:,.{places}f}") if isfinite(v) else significant(v)
        for v in values
    ]


def superscript(power: int) -> str:
    """Return an exponent in raised digits."""
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def minus(text: str) -> str:
    """Return the text with the sign of mathematics for a leading hyphen."""
    return "−" + text[1:] if text.startswith("-") else text


def with_error(value: Number, half: Number) -> tuple[str, str]:
    """Return a value and its half interval, cut at the second digit of the half interval."""
    if not (isfinite(value) and isfinite(half)) or half <= 0:
        return significant(value, 4), significant(half)
    places = min(max(1 - floor(log10(half)), 0), 12)
    return minus(f"{value:,.{places}f}"), f"{half:,.{places}f}"


def size(nbytes: Number) -> str:
    """Return a size in decimal units: `5.61 MB`."""
    if not isfinite(nbytes):
        return significant(nbytes)
    step = 0
    while abs(nbytes) >= 999.5 and step < len(UNITS) - 1:
        nbytes, step = nbytes / 1000, step + 1
    return f"{significant(nbytes) if step else f'{nbytes:.0f}'} {UNITS[step]}"


def count(number: Number) -> str:
    """Return a whole number with separators: `65,536`."""
    return f"{number:,.0f}" if isfinite(number) else significant(number)


def short_count(number: Number) -> str:
    """Return a large whole number in short: `7.1 M`."""
    step = 0
    while isfinite(number) and abs(number) >= 999.5 and step < len(SHORT_SIZES) - 1:
        number, step = number / 1000, step + 1
    return f"{significant(number, 2 if number < 10 else 3)} {SHORT_SIZES[step]}".strip()


def duration(seconds: Number) -> str:
    """Return a time: `340 ms`, `41 s`, `3 min 12 s`, `2 h 05 min`."""
    if not isfinite(seconds):
        return significant(seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{significant(seconds, 2 if seconds < 10 else 3)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: Number, digits: int = 3) -> str:
    """Return a share as a percentage: `95.3 %`."""
    return f"{significant(100 * share, digits)} %"


def times(ratio: Number) -> str:
    """Return a ratio as a factor: `2.55 ×`."""
    return f"{significant(ratio)} ×"


def quantity(value: Number, unit: str) -> str:
    """Return a number in its unit, each unit in the way people write it."""
    if unit == "byte":
        return size(value)
    if unit == "byte/s":
        return f"{size(value)}/s"
    if unit == "s":
        return duration(value)
    if value == int(value) if isfinite(value) else False:
        return f"{minus(count(value))} {unit}".removesuffix(" 1")
    return f"{significant(value, 4)} {unit}".removesuffix(" 1")


def plural(number: Number, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 module`, `3 modules`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def listing(words: list[str]) -> str:
    """Return words as a list in a sentence: `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
