"""Quantile, log, power-sum and learned levels: published tables and known errors."""

import math

import pytest
import torch

from whet.base.errors import FormatError
from whet.formats.codec import Search
from whet.formats.codecs import codec_of, scalar_of
from whet.formats.kmeans import learned, line, settled
from whet.formats.log import bases, log_levels, sum_levels
from whet.formats.lookup import Lookup, bounds, places
from whet.formats.pack import pack
from whet.formats.quantile import quantile_levels
from whet.formats.spec import parse
from whet.formats.weight import written

NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # bitsandbytes, functional.get_4bit_type("nf4")  # fmt: skip

TABLES = [
    *(quantile_levels(bits).tolist() for bits in range(2, 9)),
    *(log_levels(bits, 2.0) for bits in range(2, 7)),
    *(log_levels(4, base) for base in bases(4)[::4]),
    *(sum_levels(bits) for bits in (3, 4, 5)),
]


def normal(rows=64, inputs=1024, seed=0):
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))


def best_error(levels) -> float:
    """Return the least mean squared error of scaled levels on N(0, 1), by quadrature."""
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    p = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    table = torch.tensor(sorted(levels), dtype=torch.float64)
    table /= table.abs().max()

    def error(scale: float) -> float:
        own = table * scale
        near = own[torch.bucketize(x, (own[1:] + own[:-1]) / 2)]
        return float(((near - x).square() * p).sum())

    return min(error(scale) for scale in torch.linspace(0.5, 5, 226).tolist())


def test_nf4_is_the_published_table():
    assert quantile_levels(4).tolist() == torch.tensor(NF4).tolist()


@pytest.mark.parametrize("bits", range(2, 9))
def test_quantile_levels_ascend_from_minus_one_to_one_with_a_zero(bits):
    levels = quantile_levels(bits)
    assert len(levels) == 2**bits
    assert (levels.diff() > 0).all()
    assert (levels[0], levels[-1], levels[2 ** (bits - 1) - 1]) == (-1, 1, 0)


def test_nf4_with_extremes_is_bitsandbytes():
    weight = normal(8, 128)
    params = scalar_of(parse("nf4-g64-f32")).fit(weight, Search("minmax"))
    blocks = weight.reshape(8, 2, 64)
    assert torch.equal(params.scale, blocks.abs().amax(-1))
    distance = (blocks / params.scale[..., None])[..., None] - torch.tensor(NF4)
    expected = torch.tensor(NF4)[distance.abs().argmin(-1)] * params.scale[..., None]
    values = scalar_of(parse("nf4-g64-f32")).snap(weight, params, torch.arange(128))
    torch.testing.assert_close(values.reshape(8, 2, 64), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_levels_of_base_two_are_powers_of_two_and_zero(bits):
    levels = torch.tensor(log_levels(bits, 2.0))
    assert len(levels) == 2**bits
    mantissa, _ = torch.frexp(levels[levels != 0].abs())
    assert (mantissa == 0.5).all()
    assert (levels == 0).sum() == 1


def test_between_powers_the_border_is_half_way_in_value():
    codec = scalar_of(parse("log4-tensor-f32"))
    x = torch.tensor([0.7499, 0.7501, -0.3749, -0.3751, 0.1874, 0.1876, 0.0038, 0.0040])
    expected = torch.tensor([0.5, 1.0, -0.25, -0.5, 0.125, 0.25, 0.0, 0.0078125])
    assert torch.equal(codec.near(x, None), expected)


def test_with_scales_of_powers_of_two_every_value_is_one():
    dense = written(normal(8, 64), parse("log4-g32-e8m0")).dense()
    mantissa, _ = torch.frexp(dense[dense != 0].abs())
    assert (mantissa == 0.5).all()


@pytest.mark.parametrize(
    ("levels", "known"),
    [
        (range(-8, 8), 0.0119),
        (range(-7, 8), 0.0129),
        (quantile_levels(4).tolist(), 0.0099),
        ([s * v for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6) for s in (1, -1)], 0.0127),
        (log_levels(3, 2.0), 0.0442),
        (log_levels(4, 2.0), 0.0378),
    ],
)
def test_errors_on_the_normal_distribution_are_the_known_ones(levels, known):
    assert best_error(levels) == pytest.approx(known, rel=0.02)


def test_powers_of_two_saturate_and_other_bases_do_not():
    four, five = best_error(log_levels(4, 2.0)), best_error(log_levels(5, 2.0))
    assert four == pytest.approx(five, rel=2e-3)
    assert best_error(log_levels(3, 1.86)) < 0.0424
    assert best_error(log_levels(4, 1.43)) < 0.0140
    assert best_error(log_levels(5, 1.23)) < 0.0045
    assert best_error(sum_levels(4)) < 0.0156
    assert best_error(sum_levels(5)) < 0.0061


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("int4-tensor", 0.0119), ("nf4-tensor", 0.0099), ("fp4-tensor", 0.0127),
        ("log4-tensor", 0.0378), ("int2-tensor-affine", 0.1494), ("codebook4-tensor", 0.0095),
        ("codebook3-tensor", 0.03455), ("codebook2-tensor", 0.1175),
    ],
)  # fmt: skip
def test_searched_scales_reach_the_known_errors(name, known):
    weight = normal()
    error = float((written(weight, parse(name)).dense() - weight).square().mean())
    assert error == pytest.approx(known, rel=0.012)


def test_the_order_of_four_bit_formats_on_normal_weights():
    weight = normal(32, 512)

    def error(name: str) -> float:
        return float((written(weight, parse(name)).dense() - weight).square().mean())

    assert error("codebook4-g64") < error("codebook4-g64-shared") < error("nf4-g64")
    assert error("nf4-g64") < error("int4-g64") < error("log4-g64")
    assert error("log4-g64-tuned") < error("log4-g64-base1.43") * 1.01


def test_a_tuned_base_is_found_again():
    weight = torch.tensor(log_levels(4, bases(4)[9])).repeat(6, 8) * 0.25
    codec = scalar_of(parse("log4-g64-tuned"))
    params = codec.fit(weight)
    assert params.extra["base"].item() == bases(4)[9]
    assert torch.equal(codec.snap(weight, params, torch.arange(weight.shape[1])), weight)


@pytest.mark.parametrize("table", TABLES, ids=len)
def test_lookup_is_bisection(table):
    levels = torch.tensor(table)
    found = Lookup(levels)
    edges = bounds(levels, int(levels.abs().argmin()))
    near = [torch.nextafter(edges, torch.tensor(e)) for e in (torch.inf, -torch.inf)]
    ends = torch.tensor([torch.inf, -torch.inf, 1e30, -1e30, 0.0, -0.0])
    x = torch.cat([normal(1, 5000)[0], edges, *near, ends])
    assert torch.equal(found.nearest(x), levels[torch.bucketize(x, edges)])
    assert torch.equal(found.places(levels), torch.arange(len(levels)).to(torch.uint8))


def test_a_tie_goes_to_the_even_place_from_zero():
    levels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    assert Lookup(levels).nearest(x).tolist() == x.round().tolist()
    own = levels[1:5].expand(2, 4).contiguous()  # zero is at place 1 here, and is not counted from
    assert places(torch.tensor([[-0.5], [1.5]]), own).tolist() == [[0], [2]]


@pytest.mark.parametrize("codes", [4, 16, 32])
def test_rows_with_their_own_levels_agree_however_long_they_are(codes):
    levels = normal(5, codes, 3).sort(1).values.half().float()
    x = normal(5, 130, 4)
    long = places(x, levels)
    short = torch.cat([places(x[:, i : i + 1], levels) for i in range(130)], 1)
    assert torch.equal(long, short)
    distance = (x[..., None] - levels[:, None]).abs()
    torch.testing.assert_close(distance.gather(2, long[..., None])[..., 0], distance.amin(2))


def test_means_never_raise_the_loss_and_rest_at_the_means():
    x = normal(7, 300, 5)
    weights = torch.rand(1, 300, generator=torch.Generator().manual_seed(6))
    at = line(x, weights)
    start = torch.linspace(-3, 3, 8).expand(7, 8)
    free = torch.zeros(8, dtype=torch.bool)
    found = settled(at, start, free)
    assert (at.loss(found) <= at.loss(start)).all()
    nearest = found.gather(1, places(x, found))
    direct = ((nearest - x).square() * weights).sum(1, keepdim=True)
    torch.testing.assert_close(at.loss(found).float(), direct, rtol=1e-4, atol=1e-6)
    mass, first = at.within(found)
    means = torch.where(mass > 0, first / mass, found.double()).float()
    torch.testing.assert_close(means, found, rtol=1e-5, atol=1e-6)


def test_few_distinct_numbers_are_kept_exactly():
    x = torch.tensor([0.3, -1.0, 0.7]).repeat(2, 30)
    found = learned(line(x, torch.ones(1, 90)), 4, (None, None))
    assert torch.equal(found.unique(), torch.tensor([-1.0, 0.3, 0.7]))


def test_learned_levels_beat_even_ones():
    weight = normal(16, 256, 7) ** 3
    even = written(weight, parse("int4-channel-affine")).dense()
    own = written(weight, parse("codebook4-channel")).dense()
    assert ((own - weight).square().sum(1) <= (even - weight).square().sum(1)).all()


def test_levels_are_stored_as_halves_and_span_their_scale():
    for name in ("codebook4-g64", "codebook4-g64-shared", "codebook3-channel-shared"):
        levels = written(normal(6, 128), parse(name)).planes["levels"]
        assert levels.dtype == torch.float16
        assert (levels.diff(dim=1) >= 0).all()
        assert (levels.abs().amax(1) == 1).all()


@pytest.mark.parametrize("name", ["codebook4-g64", "codebook3-g64-shared"])
def test_the_sign_of_a_scale_turns_the_widest_weight_to_the_highest_level(name):
    weight = normal(6, 128, 8)
    codec = scalar_of(parse(name))
    params = codec.fit(weight)
    unit = codec.unit(codec.snap(weight, params, torch.arange(128)), params).reshape(6, 2, 64)
    blocks = weight.reshape(6, 2, 64)
    widest = blocks.abs().argmax(-1, keepdim=True)
    assert (unit.gather(-1, widest) == 1).all()
    assert (unit.amin(-1) > -1).all()
    assert torch.equal(params.scale.sign(), blocks.gather(-1, widest)[..., 0].sign())


def test_turned_tables_beat_fixed_ones_of_the_same_size():
    weight = normal(24, 512, 9)

    def error(name: str) -> float:
        return float((written(weight, parse(name)).dense() - weight).square().mean())

    assert error("codebook4-g64-shared") < 0.97 * error("nf4-g64") < 0.9 * error("int4-g64")
    assert error("codebook3-g64-shared") < 0.93 * error("int3-g64-affine")
    assert error("codebook2-g64-shared") < 0.9 * error("int2-g64-affine")


WHOLE = (
    "codebook4-g32-shared-int8-f16",
    "codebook3-channel-shared-int8",
    "codebook2-tensor-int8-f32",
)


@pytest.mark.parametrize("name", WHOLE)
def test_levels_of_int8_are_looked_up_and_scaled(name):
    format_, g = parse(name), torch.Generator().manual_seed(1)
    planes = {
        key: torch.randint(-128, 128, plane.shape, generator=g).to(torch.int8)
        if plane.dtype == "I8"
        else torch.randn(plane.shape, generator=g).to(torch.float16)
        for key, plane in format_.planes((5, 80)).items()
        if key != "codes"
    }
    codes = torch.randint(0, 2**format_.element.bits, (5, 80), generator=g).to(torch.uint8)
    planes["codes"] = pack(codes, format_.element.bits)
    found = codec_of(format_).decode(planes, (5, 80))
    for row in range(5):
        for column in range(80):
            scale = planes["scale"]
            group = min(column // format_.group(80), scale.shape[1] - 1)
            level = float(planes["levels"][0, int(codes[row, column])])
            assert found[row, column] == level * float(scale[min(row, len(scale) - 1), group])
    some = codec_of(format_).rows(planes, (5, 80), 1, 3)
    assert torch.equal(codec_of(format_).decode(some, (2, 80)), found[1:3])


@pytest.mark.parametrize("name", WHOLE)
def test_rounding_levels_to_int8_costs_little(name):
    weight = normal(24, 512, 9)

    def error(name: str) -> float:
        return float((written(weight, parse(name)).dense() - weight).square().mean())

    levels = written(weight, parse(name)).planes["levels"]
    assert levels.dtype == torch.int8
    assert error(name) < 1.02 * error(name.replace("-int8", ""))


def test_levels_of_int8_are_not_solved_for():
    with pytest.raises(FormatError, match="levels in int8, which are read but not solved for"):
        scalar_of(parse("codebook4-g32-shared-int8"))
    with pytest.raises(FormatError, match="no term of a sum"):
        codec_of(parse("codebook4-g32-shared-int8 + int4-g32"))
