import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.measure import divergence
from whet.measure.divergence import judged, kl, log_softmax
from whet.runtime.engine import load


def logs(seed: int, scale: float) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return log_softmax((chance.normal(size=(20, 50)) * scale).astype(np.float32))


@given(st.integers(0, 99), st.floats(0, 30), st.floats(0, 30))
def test_kl_equals_the_sum_in_extended_precision_and_is_never_negative(
    seed: int, scale: float, other: float
) -> None:
    p, q = logs(seed, scale), logs(seed + 1, other)
    exact = p.astype(np.longdouble)
    expected = (np.exp(exact) * (exact - q)).sum(-1)
    found = kl(p, q)
    assert (found >= 0).all()
    assert np.allclose(found, expected.astype(float), rtol=1e-10, atol=1e-13)


@given(st.integers(0, 99), st.floats(0, 30))
def test_probabilities_sum_to_one(seed: int, scale: float) -> None:
    assert np.allclose(np.exp(logs(seed, scale)).sum(-1), 1, atol=1e-14)


@given(st.integers(0, 99), st.floats(0, 30))
def test_kl_to_itself_is_exactly_zero(seed: int, scale: float) -> None:
    assert (kl(logs(seed, scale), logs(seed, scale)) == 0).all()


def test_impossible_tokens_cost_nothing_unless_the_original_says_them() -> None:
    with np.errstate(divide="ignore"):
        p = np.log([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
        q = np.log([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert kl(p, q).tolist() == [0.0, np.inf]


def test_a_few_rows_at_a_time_say_what_all_rows_say() -> None:
    engine = load("demo")
    tokens = np.random.default_rng(1).integers(4096, size=300)
    parts = list(judged(engine, None, tokens))
    assert [part.start for part in parts] == [0, 128, 256]
    scored = np.concatenate([part.scored for part in parts])
    assert scored[:-1].all()
    assert not scored[-1]
    log = log_softmax(engine.logits(tokens)[0])
    expected = -np.take_along_axis(log[:-1], tokens[1:, None], 1)[:, 0]
    loss = np.concatenate([part.loss for part in parts])
    assert np.allclose(loss[:-1], expected, atol=1e-5)


def test_logits_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load("demo")
    tokens = np.random.default_rng(1).integers(4096, size=200)
    whole = np.concatenate([part.loss for part in judged(engine, None, tokens)])
    monkeypatch.setattr(divergence, "NUMBERS", 64 * 4096)
    pieces = np.concatenate([part.loss for part in judged(engine, None, tokens)])
    assert np.allclose(pieces, whole, atol=1e-4)
