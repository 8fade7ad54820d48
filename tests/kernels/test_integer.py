"""Integer kernels of every tier equal exact sums; layouts are reversible; batches change nothing."""

import numpy as np
import pytest
from tests.kernels.integers import Weight, product

from whet.formats.spec import parse
from whet.kernels.described import described
from whet.kernels.native import missing, native

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
TIERS = [] if missing() else native().tiers()

NAMES = [
    f"int{bits}-{shared}{affine}"
    for bits in range(2, 9)
    for shared in ("g32", "g64", "channel")
    for affine in ("", "-affine")
] + [
    "int4-g128", "int3-g16", "int5-g4", "int6-g20-affine", "int7-g36", "int4-g40-affine",
    "int2-g100", "int8-g1000", "int3-g48-affine", "int4-tensor", "int8-tensor-affine",
    "int5-tensor-affine", "int4-g32-f16", "int4-g32-affine-f32", "int4-g32-e8m0",
    "int8-channel-f32", "int3-g64-affine-f16", "int4-g32-min-f16", "int2-g16-min-f32", "int5-g36-min",
    "int8-g64-min-f32", "int6-channel-min", "int7-tensor-min-f16", "int3-g300-min",
    "codebook4-g32-shared-int8-f16", "codebook3-g16-shared-int8-f32", "codebook2-g36-shared-int8",
    "codebook4-channel-shared-int8", "codebook3-tensor-int8-f32", "mxfp4", "fp4-g16", "fp4-g64-f16",
]  # fmt: skip
SHAPES = [(1, 4), (15, 32), (16, 36), (17, 96), (31, 68), (33, 513), (50, 1100)]
TOKENS = [1, 2, 3, 7, 8, 9, 16, 17, 23, 30]
MODES = ["int8", "token8", "int16"]


def laid_out(weight, mode="int8", fixed=0.0, tier="generic"):
    return native().pack(
        described(weight.format), weight.given, weight.rows, weight.cols, tier, mode, fixed
    )


def inputs(tokens, cols, seed=1):
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    return x * random.lognormal(0, 1, (tokens, 1)).astype(np.float32)


def equal(found, weight, x, mode, fixed=0.0):
    """Whether a product is the exact one but for the rounding of float32."""
    expected, magnitude = product(weight, x, mode, fixed)
    near = np.abs(found - expected) <= 4e-6 * magnitude + 1e-30
    return found.shape == expected.shape and bool(near.all())


@pytest.mark.parametrize("name", NAMES)
def test_unpacking_undoes_packing(name):
    for rows, cols in SHAPES:
        weight = Weight(name, rows, cols)
        for mode in MODES:
            form, planes, *shape = native().unpack(laid_out(weight, mode))
            assert form == described(weight.format)
            assert shape == [rows, cols]
            assert planes.keys() == weight.planes.keys()
            for plane, bytes_ in planes.items():
                assert bytes_.tobytes() == weight.planes[plane].tobytes(), plane


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_every_tier_equals_exact_sums(name, mode):
    for rows, cols in SHAPES:
        weight = Weight(name, rows, cols)
        layout = laid_out(weight, mode)
        for tokens in (1, 2, 19):
            x = inputs(tokens, cols)
            oracle = native().Matrix(layout, "generic").multiply(x)
            assert equal(oracle, weight, x, mode)
            for tier in TIERS:
                found = native().Matrix(layout, tier).multiply(x)
                assert found.tobytes() == oracle.tobytes(), (tier, rows, cols, tokens)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["int4-g32", "int3-g64-affine", "int8-channel", "int6-g20-affine", "int4-g32-min-f16",
     "codebook4-g32-shared-int8-f16", "mxfp4"],
)  # fmt: skip
def test_neighbours_and_threads_change_nothing(tier, mode, name):
    weight = Weight(name, 83, 700)
    matrix = native().Matrix(laid_out(weight, mode), tier)
    x = inputs(max(TOKENS), weight.cols)
    alone = np.concatenate([matrix.multiply(x[t : t + 1]) for t in range(len(x))])
    for tokens in TOKENS:
        for threads in (1, 2, 3):
            found = matrix.multiply(x[:tokens], threads)
            assert found.tobytes() == alone[:tokens].tobytes(), (tokens, threads)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", ["int8-channel", "int8-tensor-affine", "int4-g128"])
def test_a_fixed_scale_is_used(tier, name):
    weight, x = Weight(name, 40, 260), inputs(5, 260)
    matrix = native().Matrix(laid_out(weight, "token8", 0.03), tier)
    assert equal(matrix.multiply(x), weight, x, "token8", np.float32(0.03))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("sign", [1, -1])
def test_extremes_do_not_saturate(tier, bits, sign):
    weight = Weight(f"int{bits}-g64-affine", 16, 128)
    weight.planes["codes"][:] = 255
    weight.planes["zero"][:] = 0
    weight.units[:] = 2**bits - 1
    x = np.full((3, 128), sign, np.float32)
    for mode in MODES:
        found = native().Matrix(laid_out(weight, mode), tier).multiply(x)
        assert equal(found, weight, x, mode)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("mode", ["int8", "int16"])
def test_zeros_and_broken_numbers(tier, mode):
    weight = Weight("int4-g32", 20, 128)
    matrix = native().Matrix(laid_out(weight, mode), tier)
    x = np.zeros((4, 128), np.float32)
    x[1, 40], x[2, 99], x[3] = np.nan, np.inf, 1e-38
    y = matrix.multiply(x)
    assert (y[0] == 0).all()
    assert not np.isfinite(y[1:3]).any()
    assert (np.abs(y[3]) < 1e-30).all()


def test_long_rows_do_not_overflow():
    weight = Weight("int8-channel-affine", 3, 70000)
    weight.planes["codes"][:] = 255
    weight.planes["zero"][:] = 0
    weight.units[:] = 255
    x = np.ones((1, 70000), np.float32)
    for tier in TIERS:
        found = native().Matrix(laid_out(weight, "token8"), tier).multiply(x)
        assert equal(found, weight, x, "token8")


def test_equal_keys_mean_equal_inputs():
    def key(name, mode, cols=256, fixed=0.0):
        return native().Matrix(laid_out(Weight(name, 16, cols), mode, fixed), "generic").input_key

    assert key("int4-g32", "int8") == key("int3-g64-affine", "int8") == key("int8-channel", "int8")
    others = [
        key("int4-g32", "int8"), key("int4-g32", "int8", 512), key("int4-g16", "int8"),
        key("int4-g32", "token8"), key("int4-g64", "token8"), key("int4-g64", "token8", 256, 0.5),
        key("int4-g32", "int16"),
    ]  # fmt: skip
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [("int4-g6", "int8", "multiple of 4"), ("nf4-g64", "int8", "no integers"),
     ("nvfp4", "int16", "scales of"), ("codebook5-g32-shared-int8", "int8", "2 to 4 bits"),
     ("codebook4-g32-shared", "int8", "no integers"),
     ("int4-g32", "bf16", "bf16")],
)  # fmt: skip
def test_refusals_say_why(name, mode, reason):
    told = native().refusals(described(parse(name)), 16, 64, "generic", mode)
    assert reason in told["integer"]


def test_levels_beyond_int8_are_refused():
    weight = Weight("mxfp4", 16, 64)
    weight.given["table"] = weight.given["table"] * np.float32(0.25)
    with pytest.raises(native().LayoutError, match="no integer of int8"):
        laid_out(weight)


@pytest.mark.parametrize("name", ["int4-g32", "codebook4-g32-shared-int8"])
def test_damaged_layouts_are_refused(name):
    layout = np.array(laid_out(Weight(name, 40, 128)))
    aligned = np.zeros(len(layout) + 64, np.uint8)
    start = -aligned.ctypes.data % 64
    view = aligned[start : start + len(layout)]
    random = np.random.default_rng(0)
    for at in range(256):
        view[:] = layout
        view[at] ^= random.integers(1, 256)
        try:
            matrix = native().Matrix(view, "generic")
        except native().LayoutError:
            continue
        matrix.multiply(np.ones((2, matrix.cols), np.float32))
    view[:] = layout
    for cut in (0, 100, 255, 256, len(layout) - 1):
        with pytest.raises(native().LayoutError):
            native().Matrix(view[:cut], "generic")
    with pytest.raises(native().LayoutError):
        native().Matrix(aligned[start + 1 : start + 1 + len(layout)], "generic")


def test_a_product_may_be_written_to_an_array():
    weight = Weight("int4-g32", 20, 96)
    matrix = native().Matrix(laid_out(weight), "generic")
    x = inputs(1100, weight.cols)
    found = np.full((len(x), weight.rows), np.nan, np.float32)
    matrix.multiply_into(x, found, 2)
    assert found.tobytes() == matrix.multiply(x).tobytes()
    with pytest.raises(ValueError, match="tokens"):
        matrix.multiply_into(x, found[:-1], 1)
