"""Laws of removing columns and refitting the rest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.methods.solve.removal import greedy, importance, removal, spread

SEEDS = st.integers(0, 10_000)
CRITERIA = ["magnitude", "activation", "obs"]


def problem(seed: int, tokens: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    return torch.randn(6, 12, generator=generator), x.T @ x / tokens


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("size", [1, 3])
@given(seed=SEEDS, keep=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_refitted_is_never_worse(criterion: str, size: int, seed: int, keep: int) -> None:
    W, H = problem(seed, tokens=5 if seed % 2 else 80)
    done = removal(W, H, keep, criterion, size=size)
    assert done.error <= done.plain * (1 + 1e-4)
    rest = [c for c in range(12) if c not in spread(done.kept, size).tolist()]
    assert not done.weight[:, rest].any()
    assert len(done.kept) == keep


@pytest.mark.parametrize("criterion", CRITERIA)
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_columns_that_are_zero_go_first(criterion: str, seed: int) -> None:
    W, H = problem(seed)
    W[:, [2, 7, 11]] = 0
    done = removal(W, H, 9, criterion)
    assert done.kept.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, 10]
    assert done.error < 1e-9
    torch.testing.assert_close(done.weight, W)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_duplicate_costs_nothing_when_refitted(seed: int) -> None:
    W, H = problem(seed)
    H[7], H[:, 7] = H[2].clone(), H[:, 2].clone()
    H[7, 7] = H[2, 2]
    done = removal(W, H, 11, "obs", damping=1e-6)
    assert {2, 7} - set(done.kept.tolist())
    assert done.error < 1e-3


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_order_of_columns_does_not_matter(seed: int) -> None:
    W, H = problem(seed)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    kept = set(greedy(W, H, 5, 1, 0.01).tolist())
    turned = greedy(W[:, order], H[order][:, order], 5, 1, 0.01)
    assert {int(order[column]) for column in turned} == kept


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_scores_by_activation_do_not_depend_on_the_scale_of_inputs(seed: int) -> None:
    W, H = problem(seed)
    scale = torch.rand(12, generator=torch.Generator().manual_seed(seed)) + 0.5
    one = importance(W, H, "activation")
    other = importance(W / scale, H * scale[:, None] * scale, "activation")
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_wide_matrices_lose_several_groups_a_round() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1100, generator=generator)
    W, H = torch.randn(3, 1100, generator=generator), x.T @ x / 400
    W[:, ::4] = 0
    assert greedy(W, H, 275, 1, 0.01).tolist() == [c for c in range(1100) if c % 4]
