"""Rounds that are timed again, by a machine that is made up."""

from pathlib import Path

import pytest

from whet.measure import calm as measured
from whet.measure import yardstick
from whet.measure.calm import Calm
from whet.measure.product import Stopwatch


class Machine:
    """A clock, a look that takes as long as the machine is slow, and rounds of one second."""

    def __init__(self, slow: dict[int, float], always: float = 1.0) -> None:
        self.time, self.slow, self.always, self.done = 0.0, slow, always, 0

    def look(self) -> float:
        self.time += 0.01
        return 0.01 * self.slow.get(int(self.time), self.always)

    def once(self) -> float:
        self.time += 1.0
        self.done += 1
        return self.slow.get(int(self.time - 0.5), self.always)


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch):
    def use(machine: Machine) -> Machine:
        monkeypatch.setattr(measured, "perf_counter", lambda: machine.time)
        return machine

    return use


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_PATIENCE", "15")


def test_what_is_timed_in_slow_seconds_is_timed_again(clocked) -> None:
    machine = clocked(Machine(dict.fromkeys(range(3, 7), 2.0)))
    found = Calm([machine.look]).rounds(machine.once, 8, 8)
    assert found == [1.0] * 8
    assert machine.done > 8


def test_a_machine_that_stays_slow_is_taken_as_it_is(clocked) -> None:
    machine = clocked(Machine({}, always=2.0))
    calm = Calm([machine.look], best=[0.01], patience=5.0)
    assert calm.rounds(machine.once, 3, 3) == [2.0] * 3
    assert calm.given_up
    assert 5.0 <= calm.lost <= 6.5
    assert calm.own == [0.02]


def test_rounds_end_when_they_have_taken_enough(clocked) -> None:
    machine = clocked(Machine({}))
    assert len(Calm([machine.look]).rounds(machine.once, 2, 9, enough=3.5)) == 4
    assert len(Calm().rounds(machine.once, 2, 9, enough=0.0)) == 2


def test_what_was_best_is_known_to_the_next_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WHET_CACHE", str(tmp_path))
    first = yardstick.calm(1)
    first.rounds(lambda: None, 1, 1)
    first.best = [one / 100 for one in first.best]
    first.rounds(lambda: None, 0, 0)
    second = yardstick.calm(1)
    assert second.best == first.best
    assert not second.now()
    for vain in range(
        yardstick.VAIN
    ):  # once so many wait in vain, this is how quick the machine is
        last = yardstick.calm(1)
        assert last.best == first.best, vain
        last.lost = last.patience
        last.rounds(lambda: None, 0, 0)
    assert yardstick.calm(1).best[0] > 10 * first.best[0]
    next(tmp_path.rglob("*.json")).write_text('{"seconds": ["quick"]}')
    assert yardstick.calm(1).now()


def test_without_kernels_every_moment_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick, "missing", lambda: "no compiler was here")
    assert yardstick.calm(2).looks == ()


def test_without_patience_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, taken in (("0", 0.0), ("2.5", 2.5), ("soon", 15.0)):
        monkeypatch.setenv("WHET_PATIENCE", given)
        assert yardstick.patience() == taken
    monkeypatch.setenv("WHET_PATIENCE", "0")
    assert yardstick.calm(2).looks == ()


def test_large_models_wait_for_memory_too() -> None:
    assert len(yardstick.calm(1).looks) == 1
    assert len(yardstick.calm(1, 1 << 30).looks) == 2
    assert Stopwatch(1, 1).calm.looks == ()
