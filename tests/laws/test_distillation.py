"""Laws of the losses of distillation, for all logits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from whet.train.loss import Objective, divergence, mean, outcomes, truncated
from whet.train.schedule import share

KINDS = ["forward", "reverse", "jsd", "skew", "skew_reverse"]
seeds = st.integers(0, 10_000)
mixes = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


def logits(seed: int, vocab: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(4, vocab, generator=generator, dtype=torch.float64)


def between(teacher: Tensor, student: Tensor, kind, mix) -> Tensor:
    return divergence(*outcomes(student, teacher, 1.0), kind, mix)


@pytest.mark.parametrize("kind", KINDS)
@given(seeds, seeds, mixes)
def test_never_negative_and_zero_for_equals(kind, one, other, mix):
    assert (between(logits(one), logits(other), kind, mix) >= -1e-12).all()
    assert between(logits(one), logits(one), kind, mix).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@given(seeds, st.floats(-50, 50))
def test_a_constant_added_to_logits_changes_nothing(kind, seed, shift):
    one, other = logits(seed), logits(seed + 1)
    assert torch.allclose(
        between(one, other, kind, 0.3), between(one + shift, other - shift, kind, 0.3), atol=1e-9
    )


@given(seeds)
def test_jsd_is_symmetric_at_a_half_and_bounded(seed):
    one, other = 20 * logits(seed), logits(seed + 1)
    found = between(one, other, "jsd", 0.5)
    assert torch.allclose(found, between(other, one, "jsd", 0.5))
    assert (found <= math.log(2) + 1e-12).all()


@given(seeds)
def test_jsd_over_its_share_tends_to_forward_but_itself_to_zero(seed):
    one, other = logits(seed) / 3, logits(seed + 1) / 3
    near = between(one, other, "jsd", 1e-7)
    assert torch.allclose(near / 1e-7, between(one, other, "forward", 0.5), rtol=1e-3, atol=1e-5)
    assert torch.equal(between(one, other, "jsd", 0.0), between(one, other, "forward", 0.0))
    assert torch.equal(between(one, other, "jsd", 1.0), between(one, other, "reverse", 0.0))


@given(seeds)
def test_skew_without_a_share_is_plain_and_with_all_of_it_zero(seed):
    one, other = logits(seed), logits(seed + 1)
    for kind, plain in (("skew", "forward"), ("skew_reverse", "reverse")):
        assert torch.allclose(between(one, other, kind, 0.0), between(one, other, plain, 0.0))
        assert between(one, other, kind, 1.0).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@given(seeds, mixes)
def test_truncation_raises_no_divergence(kind, seed, mix):
    one, other = logits(seed), logits(seed + 1)
    whole = between(one, other, kind, mix)
    before = None
    for count in (1, 4, 8, 9):
        part = divergence(*outcomes(other, truncated(one, count), 1.0), kind, mix)
        assert (part <= whole + 1e-9).all()
        assert before is None or (part >= before - 1e-9).all()
        before = part
    assert torch.allclose(before, whole)


@given(seeds)
def test_tokens_that_do_not_count_change_nothing(seed):
    losses = Objective().of(logits(seed), logits(seed + 1), torch.zeros(4).long())
    counted = torch.tensor([True, True, False, True])
    changed = torch.where(counted, losses, 1e9)
    assert torch.allclose(mean(losses, counted), mean(changed, counted))
    assert torch.allclose(mean(losses), losses.view(2, 2).mean(1).mean())


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
@given(st.integers(1, 300), st.sampled_from([0.0, 0.05, 0.3]))
def test_schedules_stay_within_their_peak_and_reach_it(schedule, steps, warmup):
    rates = [share(step, steps, schedule, warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1)
