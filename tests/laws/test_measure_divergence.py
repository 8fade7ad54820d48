import torch
from hypothesis import given
from hypothesis import strategies as st

from whet.measure.divergence import judged, kl
from whet.runtime.engine import load


def logs(seed: int, scale: float) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return (torch.randn(20, 50, generator=chance) * scale).log_softmax(-1)


@given(st.integers(0, 99), st.floats(0, 30), st.floats(0, 30))
def test_kl_equals_the_sum_in_float64_and_is_never_negative(
    seed: int, scale: float, other: float
) -> None:
    p, q = logs(seed, scale), logs(seed + 1, other)
    expected = (p.double().exp() * (p.double() - q.double())).sum(-1)
    found = kl(p, q)
    assert (found >= 0).all()
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=5e-6)


@given(st.integers(0, 99), st.floats(0, 30))
def test_kl_to_itself_is_exactly_zero(seed: int, scale: float) -> None:
    assert (kl(logs(seed, scale), logs(seed, scale)) == 0).all()


def test_impossible_tokens_cost_nothing_unless_the_original_says_them() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]).log()
    q = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    assert kl(p, q).tolist() == [0.0, torch.inf]


def test_a_few_rows_at_a_time_say_what_all_rows_say() -> None:
    engine = load("demo")
    tokens = torch.randint(4096, (3, 500), generator=torch.Generator().manual_seed(1))
    logits = engine.logits(tokens).log_softmax(-1)
    parts = list(judged(engine, None, tokens))
    assert [part.start for part in parts] == [0, 1024]
    scored = torch.cat([part.scored for part in parts]).reshape(3, 500)
    assert scored[:, :-1].all()
    assert not scored[:, -1].any()
    loss = torch.cat([part.loss for part in parts]).reshape(3, 500)
    expected = -logits[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]
    assert torch.allclose(loss[:, :-1], expected, atol=1e-5)
