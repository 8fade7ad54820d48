"""Kernels of codes of which two of four are stored: exactly the sums of the same codes stored whole."""

import numpy as np
import pytest
from tests.kernels.integers import Weight
from tests.kernels.test_integer import inputs

from whet.formats.spec import Sparse, parse
from whet.graph.executors.dense import masked, narrowed, widened
from whet.graph.executors.weights import planes
from whet.kernels.described import described
from whet.kernels.native import missing, native
from whet.store.array import Array, Planar

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
TIERS = [] if missing() else [tier for tier in native().tiers() if tier in ("generic", "avx512")]

NAMES = [
    "2:4(int4-g64)", "2:4(int4-g32)", "2:4(int4-channel)", "2:4(int4-tensor)", "2:4(int8-channel)",
    "2:4(int8-g64)", "2:4(int4-g20)", "2:4(int8-g36-f16)", "2:4(int4-g128-f32)", "2:4(int8-g32-e8m0)",
]  # fmt: skip
SHAPES = [(1, 4), (15, 32), (16, 36), (17, 96), (31, 68), (33, 516), (50, 1100)]
MODES = ["int8", "token8"]


def stored(name: str, rows: int, cols: int, seed: int = 0) -> Planar:
    """Return a random weight as it lies on disk."""
    format_ = parse(name)
    assert isinstance(format_, Sparse)
    random = np.random.default_rng(seed)
    whole = Weight(str(format_.inner), rows, cols, seed)
    expected = format_.planes((rows, cols))
    mask = random.integers(0, 6, (rows, cols // 4), dtype=np.uint8)
    stream = np.packbits(
        (mask[..., None] >> np.arange(3, dtype=np.uint8) & 1).reshape(rows, -1),
        axis=1,
        bitorder="little",
    )
    codes = random.integers(0, 256, expected["codes"].shape, dtype=np.uint8)
    codes[:, -1:] &= 15 if cols // 2 * 4 % 8 and "int4" in name else 255
    kinds = {"codes": codes, "mask": stream, "scale": whole.planes["scale"]}
    found = {key: Array(plane.dtype, kinds[key]) for key, plane in expected.items()}
    assert all(found[key].shape == plane.shape for key, plane in expected.items())
    return Planar(format_, found, (rows, cols))


def laid_out(weight: Planar, mode: str, *, sparse: bool):
    form = weight.format
    assert isinstance(form, Sparse)
    part = narrowed(weight) if sparse else widened(weight)
    told = described(form if sparse else form.inner)
    return native().pack(told, planes(part), *weight.shape, "generic", mode, 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_every_tier_equals_the_codes_stored_whole(name: str, mode: str) -> None:
    for rows, cols in SHAPES:
        weight = stored(name, rows, cols)
        layout = laid_out(weight, mode, sparse=True)
        whole = native().Matrix(laid_out(weight, mode, sparse=False), "generic")
        for tokens in (1, 2, 7, 19):
            x = inputs(tokens, cols)
            expected = whole.multiply(x)
            for tier in TIERS:
                found = native().Matrix(layout, tier).multiply(x)
                assert found.tobytes() == expected.tobytes(), (tier, rows, cols, tokens)


@pytest.mark.parametrize("name", NAMES)
def test_unpacking_undoes_packing(name: str) -> None:
    for rows, cols in SHAPES:
        weight = stored(name, rows, cols)
        form, found, *shape = native().unpack(laid_out(weight, "int8", sparse=True))
        assert form == described(weight.format)
        assert shape == [rows, cols]
        given = planes(narrowed(weight))
        assert found.keys() == given.keys() - {"table"}
        for plane, bytes_ in found.items():
            assert bytes_.tobytes() == given[plane].tobytes(), plane


def test_layouts_are_smaller_than_those_of_all_codes() -> None:
    for name, share in (("2:4(int4-g64)", 0.78), ("2:4(int8-channel)", 0.64)):
        weight = stored(name, 64, 1024)
        sizes = [laid_out(weight, "int8", sparse=sparse).nbytes for sparse in (True, False)]
        assert sizes[0] < share * sizes[1]


@pytest.mark.parametrize(
    ("name", "cols", "tier", "reason"),
    [
        ("4:8(int4-g64)", 64, "generic", "2:4 is taken"),
        ("sparse50(int4-g64)", 64, "generic", "2:4 is taken"),
        ("2:4(int3-g64)", 64, "generic", "4 and 8 bits"),
        ("2:4(int4-g64-affine)", 64, "generic", "no zero points"),
        ("2:4(int4-g64)", 66, "generic", "multiple of 4"),
        ("2:4(int4-g64)", 64, "avx2", "avx2"),
        ("2:4(int4-g64)", 64, "neon", "neon"),
        ("2:4(nf4-g64)", 64, "generic", "no integers"),
    ],
)
def test_refusals_say_why(name: str, cols: int, tier: str, reason: str) -> None:
    told = native().refusals(described(parse(name)), 16, cols, tier, "int8", 0.0)
    assert reason in told["integer"]
    assert all(told.values())
    assert (
        "not looked up"
        in native().refusals(described(parse(name)), 16, cols, tier, "bf16", 0.0)["table"]
    )


def test_a_mask_that_keeps_another_number_is_refused() -> None:
    weight = stored("2:4(int4-g64)", 16, 64)
    part = narrowed(weight)
    given = planes(part) | {"mask": np.full((16, 8), 0x37, np.uint8)}
    with pytest.raises(native().LayoutError, match="two of each four"):
        native().pack(described(weight.format), given, 16, 64, "generic", "int8", 0.0)


def test_damaged_layouts_are_refused_or_harmless() -> None:
    layout = np.array(laid_out(stored("2:4(int4-g64)", 40, 128), "int8", sparse=True))
    aligned = np.zeros(len(layout) + 64, np.uint8)
    start = -aligned.ctypes.data % 64
    view = aligned[start : start + len(layout)]
    random = np.random.default_rng(0)
    run = 0
    for at in range(0, len(layout), 3):
        view[:] = layout
        view[at] ^= random.integers(1, 256)
        for tier in TIERS:
            try:
                matrix = native().Matrix(view, tier)
            except native().LayoutError:
                continue
            found = matrix.multiply(np.ones((2, matrix.cols), np.float32))
            assert found.shape == (2, matrix.rows)
            run += 1
    assert run > 0


def test_masks_are_read_from_numbers() -> None:
    weight = stored("2:4(int4-g64)", 4, 8)
    mask = masked(weight.planes["mask"].data, weight.format.pattern, 8)
    assert mask.reshape(4, 2, 4).sum(2).tolist() == [[2, 2]] * 4
