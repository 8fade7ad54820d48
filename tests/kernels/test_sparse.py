"""Kernels of codes of which some are stored: exactly the sums of the same codes stored whole."""

import numpy as np
import pytest
from tests.kernels.integers import Weight, bit_stream
from tests.kernels.test_integer import inputs

from whet.formats.pattern import Pattern, Share, Within, numbered
from whet.formats.spec import Sparse, parse
from whet.formats.terms import terms
from whet.graph.executors.dense import masked, narrowed, widened
from whet.graph.executors.weights import Way, planes, rows_of, run_dense
from whet.kernels.described import described
from whet.kernels.native import missing, native
from whet.store.array import Array, Planar

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
TIERS = (
    []
    if missing()
    else [tier for tier in native().tiers() if tier in ("generic", "avx512", "avx512bf16")]
)

NAMES = [
    "2:4(int8-g64)", "2:4(int8-channel)", "2:4(int4-g64)", "2:4(int8-g36-f16)", "4:8(int8-g64)",
    "1:4(int8-tensor)", "3:7(int4-g32)", "sparse50(int8-g64)", "sparse70(int4-g64)",
    "sparse0(int8-g64)", "sparse62.5-tensor(int8-g32-e8m0)", "sparse50-tensor(int4-g20)",
    "sparse99-tensor(int8-g20)", "sparse70(int8-g128-f32)", "sparse30(int4-channel)",
]  # fmt: skip
SHAPES = [(1, 4), (15, 32), (16, 36), (17, 96), (31, 68), (33, 513), (50, 1100)]
MODES = ["int8", "token8"]


def drawn(pattern: Pattern, rows: int, cols: int, random: np.random.Generator) -> np.ndarray:
    """Return a random mask with the counts of a pattern."""
    if isinstance(pattern, Within):
        rank = random.random((rows, cols // pattern.group, pattern.group)).argsort(2).argsort(2)
        return (rank < pattern.kept).reshape(rows, cols)
    lines, kept = (
        (1, pattern.of_matrix(rows, cols)) if pattern.whole else (rows, pattern.of_row(cols))
    )
    rank = random.random((lines, rows * cols // lines)).argsort(1).argsort(1)
    return (rank < kept).reshape(rows, cols)


def mask_plane(mask: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Return a mask as it lies on disk."""
    if isinstance(pattern, Share) or not pattern.number_bits:
        return bit_stream(mask.astype(np.uint8), 1)
    places = mask.reshape(len(mask), -1, pattern.group) << np.arange(pattern.group, dtype=np.uint8)
    numbers = np.searchsorted(numbered(pattern), places.sum(2)).astype(np.uint8)
    return bit_stream(numbers, pattern.number_bits)


def stored(name: str, rows: int, cols: int, seed: int = 0) -> Planar:
    """Return a random weight as it lies on disk."""
    format_ = parse(name)
    assert isinstance(format_, Sparse)
    random = np.random.default_rng(seed)
    whole = Weight(str(format_.inner), rows, cols, seed)
    expected = format_.planes((rows, cols))
    mask = drawn(format_.pattern, rows, cols, random)
    bits, lines = format_.inner.element.bits, expected["codes"].shape[0]
    codes = random.integers(0, 2**bits, (lines, mask.sum() // lines), dtype=np.uint8)
    kinds = {
        "codes": bit_stream(codes, bits),
        "mask": mask_plane(mask, format_.pattern),
        "scale": whole.planes["scale"],
    }
    found = {key: Array(plane.dtype, kinds[key]) for key, plane in expected.items()}
    assert all(found[key].shape == plane.shape for key, plane in expected.items())
    return Planar(format_, found, (rows, cols))


def fitting(name: str) -> list[tuple[int, int]]:
    """Return the shapes that a format takes."""
    return [shape for shape in SHAPES if parse(name).refuses(shape) is None]


def laid_out(weight: Planar, mode: str, *, sparse: bool):
    form = weight.format
    assert isinstance(form, Sparse)
    part = narrowed(weight) if sparse else widened(weight)
    told = described(form if sparse else form.inner)
    return native().pack(told, planes(part), *weight.shape, "generic", mode, 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_every_tier_equals_the_codes_stored_whole(name: str, mode: str) -> None:
    for rows, cols in fitting(name):
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
    for rows, cols in fitting(name):
        weight = stored(name, rows, cols)
        form, found, *shape = native().unpack(laid_out(weight, "int8", sparse=True))
        assert form == described(weight.format)
        assert shape == [rows, cols]
        given = planes(narrowed(weight))
        assert found.keys() == given.keys() - {"table"}
        for plane, bytes_ in found.items():
            assert bytes_.tobytes() == given[plane].tobytes(), plane


@pytest.mark.parametrize("name", NAMES)
def test_some_rows_are_those_of_the_whole(name: str) -> None:
    for rows, cols in fitting(name):
        if rows < 4:
            continue
        weight = stored(name, rows, cols)
        ranges = ((2, 3), (rows // 2, rows), (0, 1))
        part = rows_of(narrowed(weight), ranges)
        layout = native().pack(
            described(weight.format), planes(part), *part.shape, "generic", "int8", 0.0
        )
        x = inputs(2, cols)
        whole = native().Matrix(laid_out(weight, "int8", sparse=False), "generic").multiply(x)
        expected = np.concatenate([whole[:, start:stop] for start, stop in ranges], axis=1)
        found = native().Matrix(layout, "generic").multiply(x)
        assert found.tobytes() == expected.tobytes()


def test_layouts_are_as_small_as_what_is_kept() -> None:
    rows, cols = 64, 1024
    for name in NAMES:
        if parse(name).refuses((rows, cols)) is not None:
            continue
        weight = stored(name, rows, cols)
        form = weight.format
        assert isinstance(form, Sparse)
        kept = form.pattern.of_matrix(rows, cols) * form.inner.element.bits / 8
        scales = weight.planes["scale"].nbytes if "tensor" not in str(form.inner) else 4 * rows
        least = kept + rows * cols / 8 + scales
        quads = rows * cols // 64 if form.inner.element.bits == 4 else 0  # half a byte each
        found = laid_out(weight, "int8", sparse=True).nbytes
        assert least <= found <= least + quads / 2 + 256 + 5 * 72 + 128


@pytest.mark.parametrize(
    ("name", "tier", "reason"),
    [
        ("sparse50(int3-g64)", "generic", "4 and 8 bits"),
        ("2:4(int8-g64-affine)", "generic", "no zero points"),
        ("2:4(int8-g64)", "avx2", "avx2"),
        ("sparse50(int8-g64)", "neon", "neon"),
        ("2:4(nf4-g64)", "generic", "no integers"),
    ],
)
def test_refusals_say_why(name: str, tier: str, reason: str) -> None:
    given = (described(parse(name)), 16, 64, tier)
    told = native().refusals(*given, "int8", 0.0)
    assert reason in told["integer"]
    assert all(told.values())
    assert "not looked up" in native().refusals(*given, "bf16", 0.0)["table"]


@pytest.mark.parametrize(
    ("name", "tier", "reason"),
    [
        ("sparse50(int8-g64)", "avx512", None),
        ("sparse50(int8-g64)", "avx2", "avx2"),
        ("sparse5(int8-g64)", "avx512", "95% of the codes are kept"),
        ("sparse5-tensor(int4-g64)", "avx512", "95% of the codes are kept"),
        ("sparse50(int5-g64)", "avx512", "4 and 8 bits"),
        ("sparse50(bf16)", "avx512", "4 and 8 bits"),
        ("sparse90(nf4-g64)", "avx512", "no integers"),
    ],
)
def test_what_runs_dense_has_a_reason(name: str, tier: str, reason: str | None) -> None:
    (term,) = terms(parse(name), (64, 128))
    found = run_dense(term, Way("int8"), tier)
    assert found is None if reason is None else reason in str(found)


def test_a_mask_that_keeps_another_number_is_refused() -> None:
    weight = stored("sparse50(int8-g64)", 16, 64)
    given = planes(narrowed(weight)) | {"mask": np.full((16, 8), 0x37, np.uint8)}
    with pytest.raises(native().LayoutError, match="codes has 512 bytes, expected 640"):
        native().pack(described(weight.format), given, 16, 64, "generic", "int8", 0.0)


def damaged(layout: np.ndarray) -> np.ndarray:
    """Return a copy that may be written to, at a multiple of 64 bytes."""
    room = np.zeros(len(layout) + 64, np.uint8)
    start = -room.ctypes.data % 64
    view = room[start : start + len(layout)]
    view[:] = layout
    return view


@pytest.mark.parametrize("name", ["2:4(int8-g64)", "sparse70-tensor(int4-g32)"])
def test_damaged_layouts_are_refused_or_harmless(name: str) -> None:
    layout = np.array(laid_out(stored(name, 40, 128), "int8", sparse=True))
    view = damaged(layout)
    random = np.random.default_rng(0)
    run = 0
    for at in [*range(0, len(layout), 3), *range(len(layout) - 32, len(layout))]:
        view[:] = layout
        view[at] ^= random.integers(1, 256)
        for tier in TIERS:
            try:
                matrix = native().Matrix(view, tier)
            except native().LayoutError:
                continue
            found = matrix.multiply(np.ones((2, matrix.cols), np.float32))
            assert found.shape == (2, matrix.rows)
            assert len(native().unpack(view)) == 4
            run += 1
    assert run > 0


def test_tiles_must_end_where_the_next_one_begins() -> None:
    layout = np.array(laid_out(stored("sparse50(int8-g64)", 40, 128), "int8", sparse=True))
    starts = len(layout) - 4 * 8  # of three tiles, and the end
    masks = 256 + 16 * 2  # of the first block, behind the header and the first scales
    many = np.full(64, 255, np.uint8)
    for at, bytes_ in ((starts, [64]), (starts + 8, [0, 0]), (starts + 31, [255]), (masks, many)):
        view = damaged(layout)
        view[at : at + len(bytes_)] = bytes_
        for tier in TIERS:
            with pytest.raises(native().LayoutError, match="damaged"):
                native().Matrix(view, tier)
        with pytest.raises(native().LayoutError, match="damaged"):
            native().unpack(view)


def test_masks_are_read_from_numbers() -> None:
    weight = stored("2:4(int4-g64)", 4, 8)
    mask = masked(weight.planes["mask"].data, weight.format.pattern, 8)
    assert mask.reshape(4, 2, 4).sum(2).tolist() == [[2, 2]] * 4
