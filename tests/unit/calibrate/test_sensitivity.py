"""Predicted losses beside rounding itself, and beside the textbook's pivots."""

import pytest
import torch
from tests.problems import layer

from whet.calibrate.sensitivity import gptq_factor, rounding_loss
from whet.formats.codec import Search
from whet.formats.codecs import codec_of
from whet.formats.spec import parse
from whet.formats.weight import written


@pytest.mark.parametrize("name", ["int4-g32", "int5-g32", "int4-g32-affine", "int8-channel"])
def test_noise_of_a_grid_is_close_to_rounding(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, fisher = (
        torch.randn(64, 64, generator=generator),
        torch.rand(64, 64, generator=generator),
    )
    codec = codec_of(parse(name))
    rounded = codec.snap(weight, codec.fit(weight, Search("minmax")), torch.arange(64))
    real = float((fisher * (rounded - weight).square()).sum()) / 2
    assert rounding_loss(weight, fisher, parse(name)) == pytest.approx(real, rel=0.25)


@pytest.mark.parametrize("name", ["nf4-g32", "int4-g24", "int8-tensor"])
def test_other_formats_are_rounded(name: str) -> None:
    weight = layer(out=16, inputs=64)[0]
    fisher = torch.ones(16, 64)
    real = float((written(weight, parse(name)).dense() - weight).square().sum()) / 2
    assert rounding_loss(weight, fisher, parse(name)) == pytest.approx(real, rel=1e-4)


def test_weights_on_a_grid_with_minima_lose_nothing_in_it() -> None:
    source = layer(out=16, inputs=64)[0]
    grid = written(source, parse("int4-g32-min-f16")).dense()
    fisher = torch.ones(16, 64)
    lost = rounding_loss(grid, fisher, parse("int4-g32-min-f16"))
    assert lost < 1e-4 * rounding_loss(source, fisher, parse("int4-g32-min-f16"))
    assert rounding_loss(grid, fisher, parse("int4-g32-affine")) > 0


def test_the_factor_is_that_of_conditional_variances() -> None:
    x = layer(inputs=12, tokens=4000)[1]
    gram = (x.T @ x / len(x)).double()
    gram += 0.1 * gram.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    left, pivots = gram.diagonal().argsort(descending=True).tolist(), 0.0
    while left:  # the input of greatest mean square is rounded first, given all that follow
        first, *left = left
        inside = gram[left][:, left]
        known = gram[first, left] @ torch.linalg.solve(inside, gram[left, first]) if left else 0.0
        pivots += float(gram[first, first] - known)
    assert gptq_factor(x) == pytest.approx(pivots / float(gram.diagonal().sum()), rel=1e-3)


def test_uncorrelated_inputs_gain_nothing() -> None:
    x = torch.eye(16).repeat(4, 1)
    assert gptq_factor(x) == pytest.approx(1.0)
    assert gptq_factor(x[:0]) == 1.0
