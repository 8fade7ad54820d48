"""The laws of formats that keep some of the weights alone, on every pattern and inner format."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whet.base.errors import FormatError, RecipeError
from whet.formats.codecs import codec_of
from whet.formats.pattern import Share, Within, numbered, parse_pattern
from whet.formats.sparse import Sparse, kept, packed_mask, unpacked_mask
from whet.formats.spec import SPARSE, parse, smaller_group
from whet.formats.spec import Sparse as Named
from whet.formats.weight import Weight, written

SHAPES = [(12, 136), (5, 33), (1, 1), (3, 64)]
DTYPES = {
    torch.uint8: "U8", torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip
PATTERNS = [
    "2:4",
    "4:8",
    "1:4",
    "3:7",
    "5:16",
    "sparse50",
    "sparse33.3",
    "sparse50-tensor",
    "sparse0",
]


def matrix(rows: int, inputs: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, inputs, generator=random)
    weight *= torch.exp2(torch.randint(-2, 3, (rows, 1), generator=random).float())
    weight[:, ::9] = 0
    return weight


def counted(mask: torch.Tensor, pattern: Within | Share) -> None:
    """Check the counts of a mask, in every group, row or matrix."""
    rows, inputs = mask.shape
    assert int(mask.sum()) == pattern.of_matrix(rows, inputs)
    row = pattern.of_row(inputs)
    if row is not None:
        assert (mask.sum(1) == row).all()
    if isinstance(pattern, Within):
        for start in range(0, inputs, pattern.group):
            part = mask[:, start : start + pattern.group]
            assert (part.sum(1) == min(pattern.kept, part.shape[1])).all()


@pytest.mark.parametrize("name", SPARSE)
def test_names_are_read_back(name: str) -> None:
    format_ = parse(name)
    assert isinstance(format_, Named)
    assert str(format_) == name
    assert parse(str(format_)) == format_
    assert parse(f" {name.upper()} ") == format_


@given(
    st.one_of(
        st.builds(Share, st.floats(0, 99.9).map(lambda p: round(p, 2)), st.booleans()),
        st.integers(2, 64).flatmap(lambda m: st.builds(Within, st.integers(1, m - 1), st.just(m))),
    )
)
def test_patterns_are_read_back(pattern: Within | Share) -> None:
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("shape", SHAPES)
def test_planes_are_what_the_name_says(name: str, shape: tuple[int, int]) -> None:
    format_, weight = parse(name), written(matrix(*shape), parse(name))
    planes = format_.planes(shape)
    assert weight.planes.keys() == planes.keys()
    for key, plane in planes.items():
        held = weight.planes[key]
        assert (DTYPES[held.dtype], tuple(held.shape)) == (plane.dtype, plane.shape), key
        assert held.is_contiguous()
    assert format_.bits(shape) == 8 * sum(plane.nbytes for plane in weight.planes.values())


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("shape", SHAPES)
def test_kept_weights_are_the_inner_format_and_the_others_are_zero(
    name: str, shape: tuple[int, int]
) -> None:
    format_ = parse(name)
    assert isinstance(format_, Named)
    weight, codec = matrix(*shape), codec_of(format_)
    assert isinstance(codec, Sparse)
    stored = written(weight, format_)
    mask = codec.mask(stored.planes, shape)
    counted(mask, format_.pattern)
    inner = written(weight * mask, format_.inner).dense()
    assert torch.equal(stored.dense(), inner * mask)
    assert not stored.dense()[~mask].any()


@pytest.mark.parametrize("name", SPARSE)
def test_writing_is_a_projection(name: str) -> None:
    once = written(matrix(12, 136), parse(name)).dense()
    again = written(once, parse(name)).dense()
    torch.testing.assert_close(again, once, rtol=0, atol=0)


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_alone_are_those_rows(name: str, shape: tuple[int, int]) -> None:
    weight = written(matrix(*shape), parse(name))
    dense = weight.dense()
    for start, stop in {(0, shape[0]), (0, 1), (shape[0] // 2, shape[0])}:
        assert torch.equal(weight.rows(start, stop).dense(), dense[start:stop])
    assert torch.equal(weight.rows(0, shape[0]).rows(0, 1).dense(), dense[:1])


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("inputs", [1, 6, 64, 137])
def test_masks_are_read_back_and_exact(name: str, inputs: int) -> None:
    pattern = parse_pattern(name)
    assert pattern is not None
    scores = torch.randn(7, inputs, generator=torch.Generator().manual_seed(inputs))
    mask = kept(scores, pattern)
    counted(mask, pattern)
    plane = packed_mask(mask, pattern)
    assert plane.shape == (7, pattern.mask_bytes(inputs))
    assert torch.equal(unpacked_mask(plane, pattern, inputs), mask)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_greatest_are_kept_and_of_equals_the_first(name: str) -> None:
    pattern = parse_pattern(name)
    assert pattern is not None
    equal = kept(torch.zeros(2, 64), pattern)
    counted(equal, pattern)
    if isinstance(pattern, Within):
        assert equal[:, : pattern.kept].all()
    scores = torch.arange(128.0).reshape(2, 64)
    best = kept(scores, pattern)
    if isinstance(pattern, Share) and not pattern.whole:
        assert best[:, -(pattern.of_row(64) or 0) :].all()
    if isinstance(pattern, Share) and pattern.whole:
        assert best.flatten()[-pattern.of_matrix(2, 64) :].all()


def test_what_satisfies_a_pattern_keeps_its_zeros() -> None:
    weight = matrix(8, 64)
    pruned = written(weight, parse("2:4(bf16)")).dense()
    rounded = written(pruned, parse("2:4(int4-g64)")).dense()
    assert not rounded[pruned == 0].any()


def test_patterns_have_numbers_where_these_are_smaller() -> None:
    assert [Within(n, m).number_bits for n, m in ((2, 4), (4, 8), (1, 4), (6, 8), (1, 2), (5, 16))] == [
        3, 7, 2, 5, 1, 0,
    ]  # fmt: skip
    assert numbered(Within(2, 4)) == (3, 5, 6, 9, 10, 12)
    assert parse("2:4(int4-g64)").bits((64, 64)) == 64 * 64 * (2 + 0.75 + 0.25)
    assert parse("sparse50(int4-g64)").bits((64, 64)) == 64 * 64 * (2 + 1 + 0.25)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("4:2(bf16)", "n is 1 or more and below m"),
        ("4:4(bf16)", "n is 1 or more and below m"),
        ("0:4(bf16)", "n is 1 or more and below m"),
        ("2:400(bf16)", "at most 64"),
        ("sparse100(bf16)", "below 100"),
        ("2:4(codebook4-channel)", "choose integers"),
        ("half(bf16)", "patterns are e.g."),
        ("2:4(int4-g64 + int2-g64)", "one format of codes"),
        ("2:4", "say how the kept weights are stored"),
        ("sparse50", "say how the kept weights are stored"),
        ("2:4(int4)", "say what shares a scale"),
    ],
)
def test_names_without_a_meaning_are_refused_with_advice(name: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(name)
    assert told in str(caught.value.hint)


def test_groups_that_do_not_divide_are_made_smaller_within() -> None:
    assert str(smaller_group(parse("2:4(int4-g64)"), 96)) == "2:4(int4-g48)"
    assert str(smaller_group(parse("2:4(bf16)"), 96)) == "2:4(bf16)"


def test_a_damaged_mask_is_refused() -> None:
    for name in ("sparse50(int4-g64)", "sparse50-tensor(bf16)"):
        weight = written(matrix(4, 64), parse(name))
        planes = dict(weight.planes) | {"mask": torch.full_like(weight.planes["mask"], 255)}
        with pytest.raises(FormatError, match="keeps"):
            Weight(weight.format, planes, weight.shape).dense()
