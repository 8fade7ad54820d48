"""The exact choice, against every choice there is."""

import pytest
from tests.unit.search.menus import least, menus

from whet.search.allocate import Cap, allocate, spent, within
from whet.search.option import total

GOALS = {"kl": "nbytes", "nbytes": "kl", "decode": "kl"}  # what is least, and what is limited


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("goal", GOALS)
def test_best_of_all(seed: int, goal: str) -> None:
    of, other = menus(seed), GOALS[goal]
    whole = total(of, {menu.unit.name: 1 for menu in of}, other)
    for share in (0.4, 0.7, 1.1):
        caps = [Cap(other, share * whole)]
        best = least(of, goal, lambda choice, caps=caps: within(of, choice, caps))
        found = allocate(of, goal, caps)
        assert (found is None) == (best is None)
        if found is not None and best is not None:
            assert found.value == pytest.approx(best, rel=1e-5, abs=1e-6)
            assert within(of, found.choice, caps)
            assert found.bound <= best * (1 + 1e-9)
            assert found.gap <= 0.01


@pytest.mark.parametrize("seed", range(4))
def test_two_limits_at_once(seed: int) -> None:
    of = menus(seed)
    middle = {menu.unit.name: 2 for menu in of}
    caps = [Cap("nbytes", total(of, middle, "nbytes")), Cap("decode", total(of, middle, "decode"))]
    best = least(of, "kl", lambda choice: within(of, choice, caps))
    found = allocate(of, "kl", caps)
    assert found is not None
    assert found.value == pytest.approx(best, rel=1e-5, abs=1e-6)
    assert within(of, found.choice, caps)


def test_wider_is_never_worse() -> None:
    of = menus(3, count=8)
    least_bytes = sum(min(option.nbytes for option in menu) for menu in of)
    values = []
    for share in (1.0, 1.1, 1.3, 1.7, 3.0):
        found = allocate(of, "kl", [Cap("nbytes", share * least_bytes)])
        assert found is not None
        values.append(found.value)
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.0  # everything as it is


def test_nothing_fits() -> None:
    of = menus(1)
    assert allocate(of, "kl", [Cap("nbytes", 10.0)]) is None


def test_a_cap_of_the_blocks_leaves_the_head_alone() -> None:
    of = menus(2)
    inside = [menu for menu in of if menu.unit.layer is not None]
    least_bytes = sum(min(option.nbytes for option in menu) for menu in inside)
    cap = Cap("nbytes", float(least_bytes), "blocks")
    found = allocate(of, "kl", [cap])
    assert found is not None
    assert found.choice[of[-1].unit.name] == 0
    assert spent(of, found.choice, cap) == least_bytes


def test_many_units_are_quick_and_proven() -> None:
    of = menus(7, count=150)
    size = total(of, {menu.unit.name: 2 for menu in of}, "nbytes")
    found = allocate(of, "kl", [Cap("nbytes", size)])
    assert found is not None
    assert found.gap <= 0.01


@pytest.mark.parametrize("seed", range(4))
def test_nearly_the_best_is_within_its_gap(seed: int) -> None:
    of = menus(seed, count=40)
    middle = {menu.unit.name: 2 for menu in of}
    caps = [Cap(name, total(of, middle, name)) for name in ("nbytes", "decode")]
    best, nearly = allocate(of, "kl", caps), allocate(of, "kl", caps, gap=0.05)
    assert best is not None
    assert nearly is not None
    assert within(of, nearly.choice, caps)
    assert best.value * (1 - 1e-6) <= nearly.value <= best.value * 1.06
    assert nearly.bound <= best.value * (1 + 1e-6)
