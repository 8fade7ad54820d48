"""The numbers behind the pages of a search: the frontier, the prices, the axes, aligned columns."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.report.examples import q
from tests.unit.report.searched import searched as made

from whet.base.record import Record
from whet.report import words as say
from whet.report.evidence import evidence
from whet.report.search import account, frontier, tables
from whet.report.search.axes import linear, logarithmic
from whet.report.search.found import searched

SEARCH = searched(evidence(made()))
POINTS = frontier.curve(SEARCH)


def test_between_is_exact_at_points_falls_and_ends():
    for size, kl in POINTS:
        assert frontier.between(POINTS, size) == pytest.approx(kl)
    low, high = POINTS[0][0], POINTS[-1][0]
    along = [frontier.between(POINTS, low + i / 300 * (high - low)) for i in range(301)]
    assert all(a > b for a, b in pairwise(along))
    assert frontier.between(POINTS, low - 1) is None
    assert frontier.between(POINTS, high + 1) is None


@given(st.floats(1e3, 1e13))
def test_steps_are_round_and_some_5_percent(size):
    each = frontier.unit_of(size)
    assert f"{each:.0e}"[0] in "125"
    assert 0.02 < each / size < 0.067


def test_steps_lie_on_the_frontier():
    found = frontier.steps(SEARCH)
    (here,) = [step for step in found if not step.more]
    assert here.size == frontier.place(SEARCH)
    for step in found:
        assert step.kl == pytest.approx(frontier.between(POINTS, step.size))
        assert step.ratio == pytest.approx(step.kl / here.kl)
    for a, b in pairwise(found):
        price = a.price if a.more < 0 else b.price
        assert price == pytest.approx((a.kl - b.kl) / (b.size - a.size))
    less, more = frontier.slopes(SEARCH)
    assert less >= more > 0


def test_prices_are_those_of_the_best_neighbours():
    for unit in SEARCH.units:
        for more in (False, True):
            slopes = [
                (unit.kl - o.kl) / (o.nbytes - unit.nbytes)
                for o in unit.options
                if (o.nbytes > unit.nbytes if more else o.nbytes < unit.nbytes)
            ]
            best = (max(slopes) if more else min(slopes)) if slopes else None
            assert frontier.price(unit, more=more) == best


def test_an_optimum_has_no_trade_to_make():
    """At the optimum no byte buys more elsewhere than the dearest one given up saves."""
    buys = [p for u in SEARCH.units if (p := frontier.price(u, more=True)) is not None]
    costs = [p for u in SEARCH.units if (p := frontier.price(u, more=False)) is not None]
    assert max(buys) <= min(costs) * (1 + 1e-9)


def test_the_best_uniform_level_fits():
    mark, kl = frontier.nearest_uniform(SEARCH)
    rate = next(one.limit.value for one in SEARCH.limits if one.name == "decode")
    small = [m for m in SEARCH.uniforms if m.size <= frontier.place(SEARCH)]
    fits = [m for m in small if m.decode >= rate]
    assert mark in fits
    assert kl == min(m.kl for m in fits)


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20), st.floats(1e-6, 1e9))
def test_axes_hold_their_values_in_order(values, limit):
    for axis in (linear(values, [limit], 10.0, 90.0), logarithmic(values, [limit], 10.0, 90.0)):
        places = [axis.at(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(10 <= place <= 90 for place in places)
        marks = axis.marks()
        assert marks == sorted(set(marks))
        assert len(marks) < 25
        assert all(10 - 1e-6 <= axis.at(mark) <= 90 + 1e-6 for mark in marks)


def test_far_limits_do_not_stretch_an_axis():
    assert not linear([1.0, 2.0], [50.0], 0.0, 1.0).holds(50.0)
    assert linear([1.0, 2.0], [2.2], 0.0, 1.0).holds(2.2)


@given(st.lists(st.none() | st.floats(1e-3, 9.0), min_size=1, max_size=9))
def test_columns_are_aligned(values):
    told = say.aligned(values)
    places = {len(t.partition(".")[2]) for t, v in zip(told, values, strict=True) if v is not None}
    assert len(places) <= 1
    for text, value in zip(told, values, strict=True):
        assert text == "–" if value is None else float(text) == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.00217, 0.000854], ["0.00217", "0.00085"]),
        ([1e-9, 1.0], ["1.00 × 10⁻⁹", "1.00"]),
        ([None, float("nan")], ["–", "not a number"]),
        ([1234.5, -3.0], ["1,234.5", "−3.0"]),
    ],
)
def test_some_columns(values, expected):
    assert say.aligned(values) == expected


def test_slack_is_computed_where_it_was_not_recorded():
    records = [
        Record(r.step, r.site, {n: f for n, f in r.facts.items() if n != "slack"}, None, r.notes)
        for r in made()
    ]
    again = {limit.name: limit.slack for limit in searched(evidence(records)).limits}
    assert again["size"] == pytest.approx(SEARCH.limits[0].slack)
    assert again["decode"] == pytest.approx(0.096, abs=0.001)


def test_a_limit_that_was_not_met_is_said_first():
    facts = {"limit": q(4e6, "byte"), "predicted": q(5e6, "byte")}
    records = [
        *made(),
        Record("limit", "size", facts, notes={"kind": "max", "text": "--max-size 4MB"}),
    ]
    search = searched(evidence(records))
    assert "Not met: size (25 % above its limit)." in " ".join(account.paragraphs(search))
    assert tables.limits(search).rows[0][-1] == "not met"


def test_kinds_of_units_are_weighed():
    (embed,) = [kind for kind in account.kinds(SEARCH) if kind.name == "embed"]
    (unit,) = [unit for unit in SEARCH.units if unit.site == "embed"]
    assert embed.bits == unit.bits
    whole = sum(u.sensitivity for u in SEARCH.units) / sum(u.weights for u in SEARCH.units)
    assert embed.per_weight == pytest.approx(unit.sensitivity / unit.weights / whole)


def test_layers_that_are_alike_share_a_row():
    units = [
        Record("unit", f"layers.{i}.mlp.in", notes={"layer": str(i), "level": level})
        for i, level in enumerate(["a", "a", "b", "b", "b", "a"])
    ]
    found = tables.allocation(searched(evidence([Record("search", ""), *units])))
    assert found.rows == (("0–1", "a"), ("2–4", "b"), ("5", "a"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4.60 MB", "4.6 MB"),
        ("200 kB", "200 kB"),
        ("1.00 × 10⁻⁹", "1 × 10⁻⁹"),
        ("0.05000 nat", "0.05 nat"),
        ("3,000.0", "3,000"),
        ("0.101", "0.101"),
        ("3,000 token/s", "3,000 token/s"),
    ],
)
def test_zeros_that_say_nothing_go(text, expected):
    assert say.trimmed(text) == expected
