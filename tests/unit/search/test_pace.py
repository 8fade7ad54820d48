"""What timings of folders teach, and what is tried where one of them was slow."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.native_folders import tiny
from tests.unit.search.menus import menus
from tests.unit.search.test_predict import predictor

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.search import build
from whet.search.ask import Ask
from whet.search.assembly import Assembly
from whet.search.choose import Belief, best, caps_of, predicted, reachable
from whet.search.limits import limits
from whet.search.pace import quickest
from whet.search.stand import Stand
from whet.search.unit import Level


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    folder = tiny(tmp_path / "model", "llama")
    return Stand(folder, menus(3), (), object.__new__(Assembly), predictor("llama"), 0)


def test_the_quickest_levels_are_written_by_rounding(stand: Stand) -> None:
    found, choice = quickest(stand.menus)
    for menu, given in zip(found, stand.menus, strict=True):
        taken = menu.options[choice[menu.unit.name]]
        assert taken.decode == min(option.decode for option in given)
        assert taken.level.method in ("", "rtn")
    product = replace(stand.menus[0].options[1], level=Level(None, "svd"), decode=0.0)
    menu = replace(stand.menus[0], options=(*stand.menus[0].options, product))
    assert quickest([menu])[1] == quickest([stand.menus[0]])[1]


def test_half_way_to_the_quickest_where_a_slow_timing_forbids_all(stand: Stand) -> None:
    least = {
        m.unit.name: min(range(4), key=lambda i, m=m: m.options[i].decode) for m in stand.menus
    }
    whole = {menu.unit.name: 0 for menu in stand.menus}
    ask = Ask(stand.folder, limits(max_kl=9.0))
    most, last = (
        predicted(stand, choice, 0.0, ask.limits, Belief())["decode"] for choice in (least, whole)
    )
    ask = replace(ask, limits=limits(min_decode=f"{0.99 * most}tok/s"))
    assert reachable(stand, ask, Belief(), whole) == Belief()  # it is in reach
    slow = Belief(decode=0.9)
    assert best(stand, ask, slow) is None
    found = reachable(stand, ask, slow, whole)
    assert ask.limits.decode is not None
    assert ask.limits.decode.value / found.decode == pytest.approx((most + last) / 2)
    assert best(stand, ask, found) is not None
    assert caps_of(stand, ask.limits, found)[0].name == "decode"


def test_without_a_limit_on_decode_nothing_changes(stand: Stand) -> None:
    ask = Ask(stand.folder, limits(max_size="1kB"))
    assert reachable(
        stand, ask, Belief(decode=0.5), {m.unit.name: 0 for m in stand.menus}
    ) == Belief(decode=0.5)


@pytest.mark.parametrize(
    ("asked_for", "disturbed", "tries"),
    [
        ({"min_decode": "9"}, 0, 1),
        ({"min_decode": "9"}, 1, 2),
        ({"max_memory": "1GB"}, 9, 3),
        ({"max_kl": 0.1}, 9, 1),
    ],
)
def test_what_was_disturbed_all_the_time_is_timed_again_where_a_limit_depends_on_it(
    asked_for: dict[str, object], disturbed: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def speed(folders: list[Path], *, cache: str | None, **rounds: object) -> list[Record]:
        asked.append(len(asked))
        facts = {n: Quantity(float(len(asked)), "1", "") for n in ("decode", "ttft", "peak_rss")}
        notes = {"disturbed": "yes"} if len(asked) <= disturbed else {}
        return [Record("speed", "", facts, notes=notes)]

    monkeypatch.setattr(build.apart, "speed", speed)
    assert build.pace(Path("somewhere"), limits(**asked_for))["decode"] == tries == len(asked)
    heeded = build.steady(Path("somewhere"), limits(**asked_for))
    assert ("decode" in heeded) == (tries > 1 or not disturbed)
    assert heeded["memory"] > 0
