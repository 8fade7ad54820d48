"""Small floats against torch's own casts and against the tables of the standards."""

import pytest
import torch
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

from whet.formats.codecs import scalar_of
from whet.formats.element import MINIFLOATS, Minifloat
from whet.formats.minifloat import patterns
from whet.formats.spec import parse
from whet.formats.weight import Weight, written

EIGHT_BITS = [
    (Minifloat(4, 3), torch.float8_e4m3fn, 448.0),
    (Minifloat(5, 2), torch.float8_e5m2, 57344.0),
]


def codec_of_element(kind: Minifloat):
    return scalar_of(parse(f"{kind}-tensor"))


def midpoints(magnitudes: torch.Tensor) -> torch.Tensor:
    exact = (magnitudes[1:].double() + magnitudes[:-1].double()) / 2
    middle = exact.float()
    assert torch.equal(middle.double(), exact)
    return middle


@pytest.mark.parametrize(("kind", "dtype", "top"), EIGHT_BITS, ids=str)
def test_every_pattern_of_8_bits_is_that_of_torch(kind, dtype, top):
    codes = torch.arange(256).to(torch.uint8)
    theirs = codes.view(dtype).float()
    ours = patterns(kind)
    number = theirs.isfinite()
    assert torch.equal(number, ours.isfinite())
    assert torch.equal(ours[number], theirs[number])
    assert ours[number].max() == top


@pytest.mark.parametrize(("kind", "dtype", "top"), EIGHT_BITS, ids=str)
def test_rounding_to_8_bits_is_that_of_torch_midpoints_too(kind, dtype, top):
    values = patterns(kind)
    magnitudes = values[: len(values) // 2]
    magnitudes = magnitudes[magnitudes.isfinite()]
    middle = midpoints(magnitudes)
    up = torch.nextafter(middle, torch.tensor(torch.inf))
    down = torch.nextafter(middle, torch.tensor(-torch.inf))
    random = torch.randn(20000, generator=torch.Generator().manual_seed(0)) * 4
    spread = random * torch.exp2(torch.linspace(-20, 8, 20000).round())
    probes = torch.cat([magnitudes, middle, up, down, spread]).clamp(-top, top)
    for sign in (1, -1):
        theirs = (sign * probes).to(dtype).float()
        ours = codec_of_element(kind).near((sign * probes).clone(), None)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", MINIFLOATS, ids=str)
def test_what_is_beyond_the_largest_becomes_the_largest(kind):
    codec = codec_of_element(kind)
    huge = torch.tensor([codec.top * 1.01, 1e30, torch.inf])
    assert codec.near(huge.clone(), None).tolist() == [codec.top] * 3
    assert codec.near(-huge, None).tolist() == [-codec.top] * 3


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (Minifloat(2, 1), [0, 0.5, 1, 1.5, 2, 3, 4, 6]),
        (Minifloat(2, 3), [k / 8 for k in range(16)] + [2 + k / 4 for k in range(8)]
         + [4 + k / 2 for k in range(8)]),
    ],
    ids=str,
)  # fmt: skip
def test_tables_of_the_standard(kind, table):
    values = patterns(kind)
    assert values[: len(table)].tolist() == table
    assert values[len(table) :].tolist() == [-v for v in table]


def test_e3m2_ends_at_28():
    assert patterns(Minifloat(3, 2)).max() == 28
    assert patterns(Minifloat(3, 2))[1] == 0.0625


@pytest.mark.parametrize("kind", MINIFLOATS, ids=str)
def test_every_number_and_every_midpoint_round_half_to_even(kind):
    codec, values = codec_of_element(kind), patterns(kind)
    magnitudes = values[: len(values) // 2]
    magnitudes = magnitudes[magnitudes.isfinite()]
    assert torch.equal(codec.near(magnitudes.clone(), None), magnitudes)
    code = torch.arange(len(magnitudes))
    even = torch.where(code[1:] % 2 == 0, magnitudes[1:], magnitudes[:-1])
    assert torch.equal(codec.near(midpoints(magnitudes), None), even)
    assert torch.equal(codec.near(-midpoints(magnitudes), None), -even)


def test_codes_of_8_bits_are_torch_bytes():
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    planes = written(weight, parse("fp8-e4m3-channel")).planes
    value = planes["codes"].view(torch.float8_e4m3fn).float() * planes["scale"].float()
    dense = Weight(parse("fp8-e4m3-channel"), planes, (4, 64)).dense()
    assert torch.equal(value, dense)


def test_codes_of_nvfp4_are_those_of_compressed_tensors():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(2))
    planes = written(weight, parse("nvfp4")).planes
    values = unpack_fp4_from_uint8(planes["codes"], 8, 64, torch.float32)
    scale = planes["scale"].float() / (1 / planes["global"])  # they store the reciprocal
    theirs = (values.reshape(8, 4, 16) * scale[:, :, None]).reshape(8, 64)
    assert torch.equal(theirs, Weight(parse("nvfp4"), planes, (8, 64)).dense())


def test_mxfp4_extremes_follow_the_standard_and_searching_may_round_up():
    from whet.formats.codec import Search

    codec = scalar_of(parse("mxfp4"))
    weight = torch.tensor([[5.9, 0.1], [6.1, 0.1], [7.9, 0.1], [8.0, 0.1]]).repeat(1, 16)
    assert codec.fit(weight, Search("minmax")).scale[:, 0].tolist() == [1, 1, 1, 2]
    assert codec.fit(weight).scale[:, 0].tolist() == [1, 1, 2, 2]
    planes = codec.encode(weight)
    assert planes["scale"][:, 0].tolist() == [127, 127, 128, 128]


def test_the_global_scale_of_nvfp4_is_a_power_of_two_that_does_not_overflow():
    for size in (1e-20, 1e-3, 1.0, 447.9, 3e7):
        weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(3)) * size
        whole = written(weight, parse("nvfp4")).planes["global"]
        mantissa, _ = torch.frexp(whole)
        assert mantissa.item() == 0.5
        needed = weight.abs().max() / 6 / whole
        assert 224 < needed <= 448
