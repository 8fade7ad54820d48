"""Pages of sequences: a page that is written to has one owner, and every page comes back."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.base.errors import FitError
from whet.runtime.sequences import Sequence, Sequences

PAGE, PAGES, SLOTS = 4, 12, 5


@pytest.fixture(scope="module", autouse=True)
def _collects_its_own_alone() -> Iterator[None]:
    """Leave what other tests have loaded out of collections: they would take most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def sequences(copied: list[tuple[int, int]] | None = None) -> Sequences:
    note = [] if copied is None else copied
    return Sequences(PAGES, SLOTS, PAGE, lambda a, b: note.append((a, b)), lambda a, b: None)


def grown(owner: Sequences, sequence: Sequence, length: int) -> None:
    owner.reserve(sequence, length)
    sequence.length = length


@given(
    st.lists(
        st.tuples(st.sampled_from(["new", "grow", "back", "fork", "end"]), st.integers(0, 9)),
        max_size=40,
    )
)
def test_pages_that_are_written_to_have_one_owner(acts: list[tuple[str, int]]):
    owner = sequences()
    live: list[Sequence] = []
    for act, number in acts:
        one = live[number % len(live)] if live else None
        try:
            if act == "new":
                live.append(owner.new())
            elif act == "grow" and one is not None:
                grown(owner, one, one.length + number)
            elif act == "back" and one is not None:
                owner.shorten(one, max(0, one.length - number))
            elif act == "fork" and one is not None:
                live.append(owner.forked(one))
            elif act == "end" and live:
                live.pop(number % len(live))
        except FitError:
            continue
        finally:
            one = None
            gc.collect(0)  # what an error's traceback holds; the whole heap takes long
        open_pages = [int(s.pages[i]) for s in live for i in range(s.length // PAGE, len(s.pages))]
        assert len(open_pages) == len(set(open_pages))
        used = {int(page) for s in live for page in s.pages}
        assert owner.free == PAGES - len(used)
    live.clear()
    gc.collect()
    assert owner.free == PAGES


def test_forks_copy_the_page_that_is_not_full_alone():
    copied: list[tuple[int, int]] = []
    owner = sequences(copied)
    first = owner.new()
    grown(owner, first, 10)
    second = owner.forked(first)
    assert np.array_equal(first.pages[:2], second.pages[:2])
    assert copied == [(int(first.pages[2]), int(second.pages[2]))]


def test_too_much_is_refused_and_changes_nothing():
    owner = sequences()
    one = owner.new()
    with pytest.raises(FitError, match="pages"):
        owner.reserve(one, PAGES * PAGE + 1)
    assert owner.free == PAGES
    held = [owner.new() for _ in range(SLOTS - 1)]
    with pytest.raises(FitError, match="sequences"):
        owner.new()
    del held
