"""The one progress of a search."""

import pytest

from whet.base.errors import StoppedError
from whet.search.told import PARTS, Teller, Within


class Heard:
    def __init__(self) -> None:
        self.done: list[int] = []

    def start(self, total: int, what: str, within: float | None = None) -> None:
        raise AssertionError("a part of the work starts nothing")

    def advance(self, done: int, what: str) -> None:
        self.done.append(done)

    def note(self, text: str) -> None:
        raise AssertionError("what is worth a line is in the records")

    def finish(self) -> None:
        raise AssertionError("a part of the work ends nothing")


def test_parts_that_are_done_again_do_not_go_back() -> None:
    heard = Heard()
    teller = Teller(heard, lambda: False)
    for _ in range(2):
        part = Within(teller.part(0.5, 1.0))
        part.start(4, "compress")
        for done in range(5):
            part.advance(done, f"block {done}")
        part.note("something")
        part.finish()
    assert heard.done == sorted(heard.done)
    assert (heard.done[0], heard.done[-1]) == (PARTS // 2, PARTS)


def test_it_stops_when_asked() -> None:
    with pytest.raises(StoppedError, match="stopped at block 1"):
        Teller(Heard(), lambda: True).part(0.0, 1.0)(0.1, "block 1")
