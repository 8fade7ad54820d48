"""Integers: error bounds, the longer side, stored scales, and the search against oracles."""

from functools import partial

import pytest
import torch

from whet.base.errors import NumericalError, RecipeError
from whet.formats.codec import Search
from whet.formats.codecs import codec_of, scalar_of
from whet.formats.groups import Contest, cut
from whet.formats.scales import stored
from whet.formats.spec import parse


def normal(rows=16, inputs=128, seed=0):
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))


def values_of(name, weight, search=Search(), importance=None):
    codec = scalar_of(parse(name))
    params = codec.fit(weight, search, importance)
    return codec.snap(weight, params, torch.arange(weight.shape[1])), params


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("affine", [False, True])
def test_what_is_not_clipped_is_at_most_half_a_step_away(bits, affine):
    weight = normal() * 0.1
    name = f"int{bits}-g32{'-affine' if affine else ''}-f32"
    values, params = values_of(name, weight, Search("minmax"))
    step = params.scale.abs().repeat_interleave(32, 1)
    error = (values - weight).abs()
    if affine:
        assert (error <= step / 2 * (1 + 1e-4)).all()
    else:
        beyond = weight * params.scale.sign().repeat_interleave(32, 1) > step * (
            2 ** (bits - 1) - 1
        )
        assert (error[~beyond] <= step[~beyond] / 2 * (1 + 1e-4)).all()


def test_each_bit_is_worth_six_decibels():
    weight = normal(32, 512)
    errors = [
        float((values_of(f"int{bits}-g64", weight)[0] - weight).square().mean())
        for bits in range(4, 9)
    ]
    for more, fewer in zip(errors[1:], errors, strict=False):
        assert 3.4 < fewer / more < 4.6


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_extreme_lies_on_the_longer_side(bits, sign):
    weight = normal(4, 32) * 0.1
    weight[:, 5] = sign * 2.0
    values, params = values_of(f"int{bits}-channel-f32", weight, Search("minmax"))
    assert (params.scale.sign() == -sign).all()
    assert torch.equal(values[:, 5], weight[:, 5])
    codes = codec_of(parse(f"int{bits}-channel-f32")).write(values, params)["codes"]
    assert bits != 8 or (codes[:, 5] == 0).all()


def test_a_search_over_both_signs_finds_the_better_one():
    weight = torch.tensor([[-2.0, -1.0, 0.0, 1.0], [2.0, 1.0, 0.0, -1.0]])
    values, params = values_of("int2-channel", weight)
    assert torch.equal(values, weight)
    assert params.scale[:, 0].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("kind", ["bf16", "f16", "f32", "e8m0"])
def test_rounding_scales_is_a_projection_off_zero_and_infinity(kind):
    scale = torch.cat([normal(1, 100)[0] * 10.0**k for k in range(-44, 38, 6)])
    scale = torch.cat([scale, torch.tensor([0.0, -0.0, 3.4e38])])
    once = stored(kind, scale)
    assert torch.equal(stored(kind, once), once)
    assert once.isfinite().all()
    assert (once != 0).all()
    if kind == "e8m0":
        assert (torch.frexp(once).mantissa == 0.5).all()
        normal_range = scale.abs() > 2.0**-125
        ratio = (once / scale.abs())[normal_range & (scale.abs() < 1e38)]
        assert ((ratio > 0.66) & (ratio < 1.34)).all()
    if kind == "bf16":
        ordinary = (scale.abs() > 1e-37) & (scale.abs() < 3e38)
        assert torch.equal(once[ordinary], scale[ordinary].bfloat16().float())


def oracle(weight, bits, candidates):
    """Return the least squared error of each row over scales, one at a time."""
    best = torch.full((len(weight),), torch.inf)
    for scale in candidates.T:
        s = stored("bf16", scale)[:, None]
        values = (weight / s).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * s
        best = torch.minimum(best, (values - weight).square().sum(1))
    return best


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_of_scales_is_as_good_as_trying_many(bits):
    weight = normal(8, 64, 3)
    widest = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    candidates = widest * torch.linspace(0.15, 1, 300)
    best = oracle(weight, bits, torch.cat([candidates, -candidates], 1))
    values, _ = values_of(f"int{bits}-channel", weight)
    found = (values - weight).square().sum(1)
    assert (found <= best * 1.05).all()
    assert found.sum() <= best.sum() * 1.02


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_of_zero_points_is_nearly_as_good_as_trying_all(bits):
    weight = normal(8, 32, 4) + 0.7
    top = 2**bits - 1
    span = weight.amax(1).clamp(min=0) - weight.amin(1).clamp(max=0)
    best = torch.full((8,), torch.inf)
    for shrink in torch.linspace(0.3, 1.1, 120):
        s = stored("bf16", span * shrink / top)[:, None]
        for zero in range(top + 1):
            values = ((weight / s).round() + zero).clamp(0, top).sub(zero) * s
            best = torch.minimum(best, (values - weight).square().sum(1))
    values, params = values_of(f"int{bits}-channel-affine", weight)
    assert params.zero is not None
    assert ((params.zero >= 0) & (params.zero <= top)).all()
    found = (values - weight).square().sum(1)
    assert found.sum() <= best.sum() * 1.05


def test_offers_never_raise_a_loss():
    codec = scalar_of(parse("int4-g16"))
    (groups,) = cut(normal(4, 64), 16, None, pooled=False)
    contest = Contest(groups, codec.near, partial(groups.loss, codec.near))
    contest.offer(torch.full((4, 4), 0.5))
    for scale in torch.rand(20, 4, 4, generator=torch.Generator().manual_seed(9)):
        before = contest.loss
        contest.offer(scale, None, scale > 0.2)
        assert (contest.loss <= before).all()
    assert torch.equal(contest.loss, groups.loss(codec.near, contest.scale, None))


def test_percentile_clips_the_outliers_of_long_rows():
    weight = normal(2, 4000, 5)
    weight[:, 7] = 50
    plain = values_of("int8-channel", weight, Search("minmax"))[1].scale
    cut = values_of("int8-channel", weight, Search("percentile", percentile=0.999))[1].scale
    assert (cut.abs() < plain.abs() / 10).all()
    whole = values_of("int8-tensor", weight, Search("percentile", percentile=0.999))[1].scale
    expected = weight.flatten().abs().quantile(0.999) / 127
    assert abs(whole.abs().item() / expected.item() - 1) < 0.1


def test_divergence_clips_a_lone_outlier_and_keeps_even_weights():
    weight = normal(1, 8192, 6)
    weight[0, 0] = 60
    plain = values_of("int4-channel", weight, Search("minmax"))[1].scale.abs()
    kept = values_of("int4-channel", weight, Search("kl", 60, 0.05))[1].scale.abs()
    assert kept < plain / 3


def test_finer_groups_have_less_error():
    weight = normal(32, 512, 7)
    errors = [
        float((values_of(f"int4-{g}", weight)[0] - weight).square().mean())
        for g in ("tensor", "channel", "g128", "g64", "g32", "g16")
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_hessian_rule_asks_for_importance_and_refuses_nonsense():
    with pytest.raises(RecipeError, match="importance"):
        values_of("int4-g64", normal(), Search("hessian"))
    with pytest.raises(NumericalError, match="not finite"):
        values_of("int4-g64", normal(), Search("hessian"), torch.full((128,), torch.nan))
    unseen, _ = values_of("int4-g64", normal(), Search("hessian"), torch.zeros(128))
    assert torch.equal(unseen, values_of("int4-g64", normal())[0])


def test_int8_is_torch_s():
    weight = normal(6, 64, 8)
    values, params = values_of("int8-channel-f32", weight)
    step, sign = params.scale[:, 0].abs(), params.scale.sign()
    theirs = torch.fake_quantize_per_channel_affine(
        weight * sign, step, torch.zeros(6, dtype=torch.int32), 0, -128, 127
    )
    torch.testing.assert_close(values * sign, theirs, rtol=1e-6, atol=0)
