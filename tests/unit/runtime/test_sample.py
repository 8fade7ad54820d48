import subprocess
import sys

import numpy as np
import pytest

from whet.base.errors import NumericalError, RecipeError
from whet.runtime.sample import Sampler, Sampling, distribution, recommended

LOGITS = np.array([1.0, 3.0, 2.0, -1.0, 2.5])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")),
        ("top_k", -1), ("top_p", -0.1), ("top_p", 1.1), ("top_p", float("nan")),
        ("min_p", -0.1), ("min_p", 1.1), ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")), ("seed", -1), ("seed", 2**80),
    ],
)  # fmt: skip
def test_settings_without_a_meaning_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=field):
        Sampling(**{field: value})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error(bad: float, temperature: float) -> None:
    with pytest.raises(NumericalError, match="not finite"):
        Sampler(Sampling(temperature)).next([0.0, bad, 1.0], [])


def test_forbidden_tokens_are_fine_unless_all_are_forbidden() -> None:
    assert Sampler(Sampling(1.0, seed=0)).next([-np.inf, 0.0, -np.inf], []) == 1
    with pytest.raises(NumericalError):
        Sampler(Sampling(1.0)).next([-np.inf, -np.inf], [])
    with pytest.raises(NumericalError):
        Sampler(Sampling(1.0)).next([], [])


@pytest.mark.parametrize("temperature", [1e-300, 1e-12, 1e-3])
def test_a_tiny_temperature_is_greedy_and_does_not_overflow(temperature: float) -> None:
    chances = distribution(LOGITS * 1e4, [], Sampling(temperature))
    assert chances[1] == 1.0
    assert chances.sum() == 1.0


def test_greedy_takes_the_first_of_equals() -> None:
    assert Sampler(Sampling()).next([1.0, 2.0, 2.0], []) == 1


def test_greedy_obeys_the_repetition_penalty() -> None:
    assert Sampler(Sampling(repetition_penalty=2.0)).next(LOGITS, [1]) == 4


def test_a_penalty_pushes_negative_logits_down_too() -> None:
    chances = distribution(np.array([-1.0, -1.0]), [0, 0, 7], Sampling(1.0, repetition_penalty=2.0))
    assert chances[0] < chances[1]


def test_the_callers_logits_stay_as_they_are() -> None:
    logits = LOGITS.copy()
    Sampler(Sampling(1.0, 2, 0.5, 0.1, 2.0, 0)).next(logits, [0, 1, 2])
    assert (logits == LOGITS).all()


def test_filters_that_are_off_change_nothing() -> None:
    plain = distribution(LOGITS, [], Sampling(1.0))
    assert (distribution(LOGITS, [], Sampling(1.0, 0, 1.0, 0.0, 1.0)) == plain).all()
    assert (distribution(LOGITS, [], Sampling(1.0, top_k=99)) == plain).all()
    assert (plain > 0).all()


def test_the_tightest_filters_leave_the_best_token() -> None:
    for tight in (Sampling(1.0, top_k=1), Sampling(1.0, top_p=0.0), Sampling(1.0, min_p=1.0)):
        assert distribution(LOGITS, [], tight)[1] == 1.0


def test_recommended_settings_are_read_from_a_generation_config() -> None:
    assert recommended({}) == Sampling()
    assert recommended({"do_sample": False, "temperature": 0.7}).greedy
    told = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1}
    assert recommended(told) == Sampling(0.8, 50, 0.95, 0.0, 1.1)
    assert recommended({"do_sample": True, "top_k": 0}).top_k == 0


def test_sampling_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, whet.runtime.sample, whet.runtime.stops\n"
        "assert not {'torch', 'transformers', 'jaxtyping'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
