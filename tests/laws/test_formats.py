"""The laws of number formats, on every format."""

from functools import cache
from itertools import product

import pytest
import torch

from whet.base.errors import FormatError, NumericalError
from whet.formats import compose
from whet.formats.codec import Params, Scalar, Search
from whet.formats.codecs import codec_of, scalar_of
from whet.formats.element import Learned
from whet.formats.pack import pack
from whet.formats.scaled import Scaled
from whet.formats.spec import EXAMPLES, Coded, parse
from whet.formats.weight import Weight, written

SCALARS = [name for name in EXAMPLES if isinstance(codec_of(parse(name)), Scalar)]
SINGLE = [name for name in SCALARS if "+" not in name]
KINDS = (
    "int4-g64", "int2-g32", "int3-g64-affine", "int8-tensor-affine", "int4-g32-e8m0", "fp4-g64",
    "fp8-e4m3-channel", "nvfp4", "nf4-g64", "log4-g64", "log4-g64-tuned", "apot5-channel",
    "codebook4-channel", "codebook4-tensor", "codebook3-g64-shared",
)  # one of each kind of codec and of search  # fmt: skip
ROWS, INPUTS = 12, 136  # ragged for every group size but 8
DTYPES = {
    torch.uint8: "U8", torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip


def make(seed: int = 0, rows: int = ROWS, inputs: int = INPUTS) -> torch.Tensor:
    """Heavy-tailed rows of different sizes, some zeros, one lopsided row, one zero group."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, inputs, generator=random)
    weight *= weight.abs() * torch.exp2(torch.randint(-3, 4, (rows, 1), generator=random).float())
    weight[:1] = weight[:1].abs()
    weight[1:2, :16] = 0
    weight[2:3, ::5] = 0
    return weight * 0.05


def snapped(codec: Scalar, weight: torch.Tensor, params: Params) -> torch.Tensor:
    return codec.snap(weight, params, torch.arange(weight.shape[1]))


@cache
def fitted(name: str) -> tuple[Scalar, torch.Tensor, Params, torch.Tensor]:
    """Return the codec of a format, a matrix, parameters for it and what it becomes."""
    codec, weight = scalar_of(parse(name)), make()
    params = codec.fit(weight)
    return codec, weight, params, snapped(codec, weight, params)


@cache
def example(name: str) -> Weight:
    """Return a matrix written in a format."""
    return written(make(), parse(name))


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("shape", [(ROWS, INPUTS), (1, 1)])
def test_planes_are_what_the_name_says(name, shape):
    format_ = parse(name)
    if format_.refuses(shape):
        with pytest.raises(FormatError, match="has rank"):
            written(make(1, *shape), format_)
        return
    weight = example(name) if shape == (ROWS, INPUTS) else written(make(1, *shape), format_)
    planes = format_.planes(shape)
    assert weight.planes.keys() == planes.keys()
    for key, plane in planes.items():
        held = weight.planes[key]
        assert (DTYPES[held.dtype], tuple(held.shape)) == (plane.dtype, plane.shape), key
        assert held.is_contiguous()
        assert held.nbytes == plane.nbytes
    assert format_.bits(shape) == 8 * sum(plane.nbytes for plane in weight.planes.values())


@pytest.mark.parametrize("name", [n for n in EXAMPLES if "+" not in n and "lowrank" not in n])
def test_writing_is_a_projection(name):
    once = example(name).dense()
    again = written(once, parse(name)).dense()
    exact = not name.endswith("f32") or name == "f32"
    torch.testing.assert_close(again, once, rtol=0 if exact else 1e-6, atol=0)


@pytest.mark.parametrize("name", SCALARS)
def test_what_was_snapped_is_read_back(name):
    codec, weight, params, values = fitted(name)
    planes = codec.write(values, params)
    assert torch.equal(codec.decode(planes, weight.shape), values)
    read, again = codec.read(planes, weight.shape)
    assert torch.equal(read, values)
    assert torch.equal(again.scale, params.scale)
    assert torch.equal(codec.stored(params.scale, params), params.scale)
    assert torch.equal(codec.snap(weight, again, torch.arange(INPUTS)), values)


@pytest.mark.parametrize("name", SCALARS)
def test_levels_are_fixed_points_and_columns_are_independent(name):
    codec, weight, params, values = fitted(name)
    assert torch.equal(snapped(codec, values, params), values)
    some = torch.tensor([INPUTS - 1, 3, 70, 3])
    assert torch.equal(codec.snap(weight[:, some], params, some), values[:, some])
    one = torch.tensor([64])
    assert torch.equal(codec.snap(weight[:, 64:65], params, one), values[:, 64:65])


def every_value(name: str, planes: dict[str, torch.Tensor], shape: tuple[int, int]):
    """Decode every code at every place: (codes, out, in)."""
    format_ = parse(name)
    if "+" in name:
        codec = codec_of(format_)
        assert isinstance(codec, compose.Sum)
        terms = [
            every_value(str(c.format), compose.of(i, planes), shape)
            for i, c in enumerate(codec.codecs)
        ]
        return torch.stack([a + b for a, b in product(*terms)])
    assert isinstance(format_, Coded)
    bits = format_.element.bits
    full = [torch.full(shape, code, dtype=torch.uint8) for code in range(2**bits)]
    codes = [{**planes, "codes": pack(code, bits)} for code in full]
    return torch.stack([codec_of(format_).decode(mine, shape) for mine in codes])


@pytest.mark.parametrize("name", SCALARS)
def test_nothing_representable_is_nearer(name):
    codec, weight = scalar_of(parse(name)), make(4, 4, 40)
    params = codec.fit(weight, Search("mse", 6))
    probes = torch.stack([weight, -2 * weight]) if "+" not in name else weight[None]
    all_values = every_value(name, codec.write(snapped(codec, weight, params), params), (4, 40))
    for probe in probes:
        values = snapped(codec, probe, params)
        distance = (all_values.double() - probe.double()).abs().nan_to_num(torch.inf).amin(0)
        mine = (values.double() - probe.double()).abs()
        assert (mine <= distance * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("name", SCALARS)
def test_scaling_by_a_power_of_two_scales_the_result(name):
    power = 2.0 ** (-5 if len(name) % 2 else 3)
    scaled = written(make() * power, parse(name)).dense()
    assert torch.equal(scaled, example(name).dense() * power)


@pytest.mark.parametrize("name", SCALARS)
def test_rows_are_independent_where_the_codec_says_so(name):
    codec, weight = scalar_of(parse(name)), make()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    whole = example(name).dense()
    shuffled = written(weight[order], parse(name)).dense()
    if codec.rowwise:
        assert torch.equal(shuffled, whole[order])
        if "+" not in name:
            assert torch.equal(written(weight[5:7], parse(name)).dense(), whole[5:7])
    elif "tensor" in name or "e4m3" in name:
        assert torch.equal(shuffled, whole[order])


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 11), (5, 5 + 3), (0, ROWS)])
def test_rows_of_planes_decode_to_rows(name, start, stop):
    weight = example(name)
    part = weight.rows(start, stop)
    assert torch.equal(part.dense(), weight.dense()[start:stop])
    if not {"global", "base"} & {key.split(".")[-1] for key in part.planes}:
        assert part.shape == (stop - start, INPUTS)
    for key, plane in parse(name).planes(part.shape).items():
        assert tuple(part.planes[key].shape) == plane.shape


@pytest.mark.parametrize("name", SCALARS)
def test_zeros_and_constants(name):
    format_ = parse(name)
    zeros = written(torch.zeros(3, 40), format_)
    assert not zeros.dense().any()
    if (
        not (isinstance(format_, Coded) and isinstance(format_.element, Learned))
        and "+" not in name
    ):
        assert not example(name).dense()[make() == 0].any()
    if "+" in name:
        return
    constant = torch.tensor([[0.37], [-0.37]]).expand(2, 40).contiguous()
    error = (written(constant, format_).dense() - constant).abs().max()
    assert error <= (0.35 if "e8m0" in name or name in ("mxfp4", "mxfp8") else 0.07) * 0.37


@pytest.mark.parametrize("name", KINDS)
def test_scales_are_never_zero(name):
    codec = scalar_of(parse(name))
    for size in (0, 1e-30, 1e30):
        params = codec.fit(make(9, 3, 40) * size, Search("mse", 3))
        assert params.scale.isfinite().all()
        assert (params.scale != 0).all()
        if params.zero is not None:
            assert (params.scale > 0).all()


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_by_place(name, bad):
    weight = make(10, 5, 18)
    weight[4, 17] = bad
    with pytest.raises(NumericalError, match="row 4, column 17"):
        written(weight, parse(name))


@pytest.mark.parametrize("name", SCALARS)
def test_empty_weights_are_refused(name):
    with pytest.raises(FormatError, match="empty"):
        written(torch.zeros(0, 8), parse(name))


@pytest.mark.parametrize("name", KINDS)
def test_searching_beats_extremes_and_finer_searching_is_no_worse(name):
    codec, weight = scalar_of(parse(name)), make(11, 16, 256)

    def loss(search: Search) -> float:
        values = snapped(codec, weight, codec.fit(weight, search))
        return float((values - weight).square().sum())

    plain, coarse, fine = loss(Search("minmax")), loss(Search("mse", 5)), loss(Search("mse", 17))
    assert coarse <= plain * (1.001 if "codebook" in name else 1 + 1e-6)
    assert fine <= coarse * 1.002  # both end in local least-squares steps


@pytest.mark.parametrize("name", KINDS)
def test_importance_moves_the_error_to_where_it_matters_less(name):
    codec, weight = scalar_of(parse(name)), make(12, 16, 256)
    importance = torch.rand(256, generator=torch.Generator().manual_seed(1)).pow(4) * 7

    def loss(rule: str, given: torch.Tensor | None) -> float:
        values = snapped(codec, weight, codec.fit(weight, Search(rule, 12), given))
        return float(((values - weight).square() * importance).sum())

    plain = loss("mse", None)
    assert loss("hessian", importance) <= plain * 1.01
    assert loss("mse", importance) == plain


@pytest.mark.parametrize("name", KINDS)
def test_every_rule_gives_members(name):
    codec, weight = scalar_of(parse(name)), make(13, 3, 70)
    for rule in ("minmax", "percentile", "kl"):
        params = codec.fit(weight, Search(rule, 4))
        values = snapped(codec, weight, params)
        assert torch.equal(codec.decode(codec.write(values, params), weight.shape), values)


@pytest.mark.parametrize("name", SCALARS)
def test_units_times_scales_are_values_and_scales_may_move(name):
    codec, weight, params, values = fitted(name)
    unit = codec.unit(values, params)
    first = codec.codecs[0] if isinstance(codec, compose.Sum) else codec
    assert isinstance(first, Scaled)
    columns = torch.arange(INPUTS)
    back = unit * first.spread(params.scale, columns)
    if "+" in name:
        torch.testing.assert_close(back, values, rtol=1e-6, atol=0)
    else:
        assert torch.equal(back, values)
    moved, other = codec.rescaled(values, params, params.scale * 1.1)
    planes = codec.write(moved, other)
    assert torch.equal(codec.decode(planes, weight.shape), moved)
    if "+" not in name:
        assert torch.equal(moved, unit * first.spread(other.scale, columns))


@pytest.mark.parametrize(
    "name",
    ["int4-g64", "int3-g64-affine", "int8-tensor", "nvfp4", "nf4-g64", "log4-g64", "codebook4-g64",
     "codebook4-channel", "codebook3-g64-shared"],
)  # fmt: skip
def test_large_matrices_are_cut_without_a_seam(name, monkeypatch):
    for module in ("scaled", "groups", "compose", "codebook"):
        monkeypatch.setattr(f"whet.formats.{module}.PART", 4 * INPUTS)
    parts = written(make(), parse(name)).dense()
    assert torch.equal(parts, example(name).dense())


def test_a_weight_knows_its_rows():
    weight = example("int3-g64-affine")
    again = Weight(weight.format, weight.planes, weight.shape).rows(2, 9)
    assert again.shape == (7, INPUTS)
