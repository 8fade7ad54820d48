import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.base.errors import RecipeError
from whet.runtime.sample import Sampler, Sampling, distribution
from whet.runtime.stops import Stops

PIECES = st.lists(st.text("ab\n", max_size=4), max_size=8)
STRINGS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)
SETTINGS = st.builds(
    Sampling,
    temperature=st.floats(0.01, 10),
    top_k=st.integers(0, 12),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    seed=st.integers(0, 2**63 - 1),
)


@given(SETTINGS, st.integers(0, 99))
def test_what_is_left_is_a_distribution_with_the_best_token_in_it(
    sampling: Sampling, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=10) * 4
    chances = distribution(logits, [1, 2], sampling)
    unfiltered = Sampling(sampling.temperature, repetition_penalty=sampling.repetition_penalty)
    assert np.isclose(chances.sum(), 1)
    assert chances[distribution(logits, [1, 2], unfiltered).argmax()] > 0


@given(SETTINGS, st.integers(0, 99))
def test_equal_seeds_give_equal_tokens_and_only_possible_ones(
    sampling: Sampling, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=10) * 4
    one, two = Sampler(sampling), Sampler(sampling)
    drawn = [one.next(logits, []) for _ in range(20)]
    assert drawn == [two.next(logits, []) for _ in range(20)]
    chances = distribution(logits, [], sampling)
    assert all(chances[token] > 0 for token in drawn)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = np.log([0.5, 0.3, 0.2])
    sampler = Sampler(Sampling(1.0, seed=5))
    counts = np.bincount([sampler.next(logits, []) for _ in range(20_000)], minlength=3)
    expected = np.array([0.5, 0.3, 0.2]) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # χ², 2 degrees of freedom, 0.999


def through(stops: Stops, pieces: list[str]) -> str:
    return "".join(stops.feed(piece) for piece in pieces) + stops.flush()


@given(PIECES, STRINGS)
def test_stopped_text_does_not_depend_on_its_pieces(pieces: list[str], strings: list[str]) -> None:
    text = "".join(pieces)
    whole, cut = Stops(strings), Stops(strings)
    assert through(cut, pieces) == through(whole, [text]) == through(Stops(strings), list(text))
    assert cut.found == whole.found


@given(PIECES, STRINGS)
def test_text_stops_before_the_first_complete_stop_string(
    pieces: list[str], strings: list[str]
) -> None:
    text = "".join(pieces)
    ends = [e for e in range(len(text) + 1) for s in strings if text[:e].endswith(s)]
    expected = text
    if ends:
        head = text[: min(ends)]
        expected = head[: -max(len(s) for s in strings if head.endswith(s))]
    assert through(Stops(strings), pieces) == expected


@given(PIECES, STRINGS)
def test_no_more_is_held_back_than_could_begin_a_stop_string(
    pieces: list[str], strings: list[str]
) -> None:
    stops, shown, fed = Stops(strings), "", ""
    for piece in pieces:
        shown, fed = shown + stops.feed(piece), fed + piece
        if stops.found is None:
            held = fed[len(shown) :]
            assert not held or any(s.startswith(held) and s != held for s in strings)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(RecipeError, match="empty"):
        Stops(["a", ""])
