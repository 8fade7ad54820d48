"""Sums of formats: two-level codes."""

from dataclasses import replace

import pytest
import torch

from whet.base.errors import FormatError
from whet.formats.codec import Search
from whet.formats.codecs import scalar_of
from whet.formats.compose import of
from whet.formats.spec import parse
from whet.formats.weight import written


def normal(rows=8, inputs=128, seed=0):
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))


def fitted(name, weight):
    codec = scalar_of(parse(name))
    params = codec.fit(weight, Search("mse", 6))
    return codec, params, codec.snap(weight, params, torch.arange(weight.shape[1]))


def error(name, weight):
    return float((fitted(name, weight)[2] - weight).square().mean())


def test_a_second_level_takes_most_of_what_the_first_left():
    weight = normal()
    assert error("int2-g64 + int2-g64", weight) < error("int2-g64", weight) / 8
    assert error("int4-channel + nf2-g32", weight) < error("int4-channel", weight) / 8


def test_planes_are_those_of_the_terms():
    weight = written(normal(), parse("int4-channel + nf2-g32"))
    assert sorted(weight.planes) == ["0.codes", "0.scale", "1.codes", "1.scale"]
    terms = [
        scalar_of(parse(name)).decode(of(i, weight.planes), weight.shape)
        for i, name in enumerate(("int4-channel", "nf2-g32"))
    ]
    assert torch.equal(terms[0] + terms[1], weight.dense())


def test_three_levels():
    weight = normal(4, 64, 1)
    three = "int2-g32-affine + int2-channel + log2-g16"
    assert error(three, weight) < error("int2-g32-affine + int2-channel", weight)
    codec, params, values = fitted(three, weight)
    assert torch.equal(codec.decode(codec.write(values, params), weight.shape), values)


def test_replacing_the_first_scales_moves_all_of_them():
    codec, params, values = fitted("int2-g64 + int2-g32", normal(4, 128, 2))
    moved, other = codec.rescaled(values, params, params.scale * 2)
    assert torch.equal(moved, values * 2)
    replaced = replace(params, scale=codec.stored(params.scale * 2, params))
    planes, again = codec.write(moved, replaced), codec.write(moved, other)
    for name, plane in planes.items():
        assert torch.equal(plane, again[name])


def test_plain_numbers_are_no_codes():
    with pytest.raises(FormatError, match="plain numbers"):
        scalar_of(parse("bf16"))


def test_numbers_beyond_f16_are_refused_by_place():
    weight = normal(3, 8)
    weight[1, 2] = 1e5
    with pytest.raises(FormatError, match="row 1, column 2"):
        written(weight, parse("f16"))
    assert written(weight, parse("bf16")).dense().isfinite().all()
