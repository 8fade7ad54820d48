import numpy as np
import pytest

from whet.measure.intervals import Numbers, bootstrap, median


def mean(sums: dict[str, Numbers]) -> Numbers:
    return sums["x"] / sums["n"]


def ones(values: Numbers) -> Numbers:
    return np.ones(len(values))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        x = chance.exponential(size=40)
        found = bootstrap({"x": x, "n": ones(x)}, {"mean": mean}, trial, 300)["mean"]
        hits += found.low <= 1 <= found.high
    assert 0.87 <= hits / 200 <= 0.99


def test_documents_of_unequal_length_are_weighed_by_their_tokens() -> None:
    sums = {"x": np.array([10.0, 0.0]), "n": np.array([10.0, 30.0])}
    assert bootstrap(sums, {"mean": mean})["mean"].value == 0.25


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    chance = np.random.default_rng(2)
    before = chance.normal(3.7, 0.5, 60)
    sums = {"a": before, "b": before + chance.normal(0.01, 0.01, 60), "n": ones(before)}
    found = bootstrap(
        sums,
        {
            "a": lambda s: s["a"] / s["n"],
            "b": lambda s: s["b"] / s["n"],
            "difference": lambda s: (s["b"] - s["a"]) / s["n"],
        },
    )
    width = {name: one.high - one.low for name, one in found.items()}
    assert width["difference"] < 0.1 * np.hypot(width["a"], width["b"])
    assert found["difference"].low > 0


def test_intervals_are_deterministic_by_seed() -> None:
    sums = {"x": np.random.default_rng(3).normal(size=20), "n": np.ones(20)}
    assert bootstrap(sums, {"m": mean}, 7) == bootstrap(sums, {"m": mean}, 7)
    assert bootstrap(sums, {"m": mean}, 7) != bootstrap(sums, {"m": mean}, 8)


def test_the_order_of_documents_does_not_matter_to_the_value() -> None:
    x = np.random.default_rng(4).normal(size=20)
    forth, back = ({"x": v, "n": np.ones(20)} for v in (x, x[::-1]))
    assert np.isclose(
        bootstrap(forth, {"m": mean})["m"].value, bootstrap(back, {"m": mean})["m"].value
    )


def test_one_document_has_no_interval() -> None:
    found = bootstrap({"x": np.array([3.0]), "n": np.array([2.0])}, {"m": mean})["m"]
    assert (found.value, found.low, found.high) == (1.5, None, None)


@pytest.mark.parametrize("count", [5, 7, 12, 30])
def test_the_interval_of_a_median_covers_it_at_least_as_often_as_it_says(count: int) -> None:
    chance = np.random.default_rng(count)
    hits = 0
    for _ in range(2000):
        found, sure = median(chance.exponential(size=count))
        hits += found.low <= np.log(2) <= found.high
    assert hits / 2000 >= sure - 0.02


def test_the_interval_of_a_median_is_as_narrow_as_it_may_be() -> None:
    found, sure = median(np.arange(12.0))
    assert (found.low, found.value, found.high) == (2.0, 5.5, 9.0)
    assert 0.95 <= sure < 0.97
    assert median(np.arange(3.0))[0].low == 0.0
