"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (42.134, "42.1"),
        (0.004213, "0.00421"),
        (1234567, "1,234,567"),
        (-0.5, "−0.500"),
        (2.13e-7, "2.13 × 10⁻⁷"),
        (math.nan, "not a number"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (9.999, "10.0"),
        (1e-5, "0.0000100"),
    ],
)
def test_significant(value, text):
    assert words.significant(value) == text


@given(st.floats(-1e300, 1e300))
def test_significant_is_within_its_digits(value):
    text = words.significant(value, 4).replace("−", "-").replace(",", "")
    for digit in "⁰¹²³⁴⁵⁶⁷⁸⁹":
        text = text.replace(digit, str("⁰¹²³⁴⁵⁶⁷⁸⁹".index(digit)))
    read = float(text.replace(" × 10⁻", "e-").replace(" × 10", "e").replace("⁻", "-"))
    assert read == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [
        (0.0038312, 0.000213, ("0.00383", "0.00021")),
        (42.2713, 0.52, ("42.27", "0.52")),
        (8120.4, 95.2, ("8,120", "95")),
        (1.0, 0.0, ("1.000", "0")),
        (1.0, math.nan, ("1.000", "not a number")),
    ],
)
def test_with_error(value, half, expected):
    assert words.with_error(value, half) == expected


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 byte"),
        (999, "999 byte"),
        (1000, "1.00 kB"),
        (999_600, "1.00 MB"),
        (5_441_000, "5.44 MB"),
        (14.7e9, "14.7 GB"),
        (3e18, "3,000 PB"),
        (math.nan, "not a number"),
    ],
)
def test_size(nbytes, text):
    assert words.size(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.34, "340 ms"),
        (5.94, "5.9 s"),
        (41.2, "41.2 s"),
        (59.97, "1 min 00 s"),
        (192, "3 min 12 s"),
        (7530, "2 h 05 min"),
    ],
)
def test_duration(seconds, text):
    assert words.duration(seconds) == text


def test_small_ones():
    assert words.percent(0.9534) == "95.3 %"
    assert words.times(2.549) == "2.55 ×"
    assert words.short_count(7_080_000) == "7.1 M"
    assert words.short_count(512) == "512"
    assert words.plural(1, "module") == "1 module"
    assert words.plural(3, "entry", "entries") == "3 entries"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.listing([]) == ""
    assert words.quantity(3.0, "1") == "3"
    assert words.quantity(0.25, "1") == "0.2500"
    assert words.quantity(8120.0, "token/s") == "8,120 token/s"
    assert words.quantity(math.nan, "nat") == "not a number nat"
