"""Products as formats: names, planes, terms."""

import pytest
import torch

from whet.base.errors import FormatError, RecipeError
from whet.formats.codecs import codec_of, scalar_of
from whet.formats.lowrank import Corrected, LowRank, opposite
from whet.formats.spec import parse, smaller_group
from whet.formats.terms import terms
from whet.formats.weight import written


def test_names_and_spellings() -> None:
    assert str(parse("lowrank-64(bf16)")) == "lowrank-64"
    assert str(parse(" LowRank-4( INT8-g64 ) ")) == "lowrank-4(int8-g64)"
    for name in ("lowrank-64(f16)", "int2-g64 + int2-g64 + lowrank-3", "nf4-g64 + lowrank-16"):
        assert str(parse(name)) == name
        assert parse(str(parse(name))) == parse(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lowrank-0", "rank of one or more"),
        ("lowrank", "did you mean"),
        ("lowrank-8 + int4-g64", "comes last"),
        ("lowrank-8 + lowrank-4", "corrects codes"),
        ("bf16 + lowrank-8", "corrects codes"),
        ("lowrank-8(lowrank-4)", "plain numbers or codes"),
        ("lowrank-8(int4)", "int4-g64"),
    ],
)
def test_wrong_names_say_what_is_wrong(name: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=hint):
        parse(name)


def test_sizes_are_exact() -> None:
    assert parse("lowrank-64").bits((768, 256)) == 16 * 64 * (768 + 256)
    codes = parse("int4-g64").bits((768, 256))
    assert parse("int4-g64 + lowrank-16").bits((768, 256)) == codes + 16 * 16 * (768 + 256)
    planes = parse("int4-g64 + lowrank-16(int8-g64)").planes((768, 256))
    assert planes["1.left.codes"].shape == (768, 16)
    assert planes["1.left.scale"].shape == (768, 1)
    assert planes["1.right.codes"].shape == (16, 256)
    assert planes["1.right.scale"].shape == (16, 4)


def test_groups_follow_the_inputs() -> None:
    assert str(smaller_group(parse("int4-g64 + lowrank-3(int8-g64)"), 96)) == (
        "int4-g48 + lowrank-3(int8-g48)"
    )
    assert str(smaller_group(parse("lowrank-3"), 96)) == "lowrank-3"


def test_terms_name_every_plane_once() -> None:
    for name in (
        "bf16",
        "int4-g8",
        "int2-g8 + int2-g8",
        "lowrank-2",
        "int2-g8 + int2-g8 + lowrank-2(int8-g8)",
    ):
        format_ = parse(name)
        found = [
            (term.prefix + plane, item)
            for term in terms(format_, (6, 16))
            for plane, item in term.format.planes(term.shape).items()
        ]
        assert dict(found) == format_.planes((6, 16))
        assert len(found) == len(dict(found))


def test_the_default_rule_is_eckart_and_youngs() -> None:
    W = torch.randn(9, 14, generator=torch.Generator().manual_seed(0))
    U, s, V = torch.linalg.svd(W)
    for rank in (1, 4, 9):
        found = written(W, parse(f"lowrank-{rank}(f32)")).dense()
        expected = (U[:, :rank] * s[:rank]) @ V[:rank]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    codec = codec_of(parse("int2-g7 + lowrank-9(f32)"))
    assert isinstance(codec, Corrected)
    torch.testing.assert_close(codec.decode(codec.encode(W), (9, 14)), W, rtol=1e-4, atol=1e-5)


def test_the_right_factor_is_fitted_to_the_left_one_as_it_is_stored() -> None:
    W = torch.randn(9, 14, generator=torch.Generator().manual_seed(1))
    codec = codec_of(parse("lowrank-3(int3-channel)"))
    assert isinstance(codec, LowRank)
    left, right = codec.factors(codec.encode(W), (9, 14))
    best = opposite(left.double(), W.double()).float()
    again = codec.inner.decode(codec.inner.encode(best), (3, 14))
    torch.testing.assert_close(right, again)
    assert opposite(torch.zeros(9, 2), W).abs().max() == 0


def test_a_product_is_no_grid_and_has_a_largest_rank() -> None:
    with pytest.raises(FormatError, match="holds a product"):
        scalar_of(parse("int4-g64 + lowrank-2"))
    with pytest.raises(FormatError, match="lowrank-4 has rank 4, a matrix of 3 × 8 has at most 3"):
        written(torch.zeros(3, 8), parse("lowrank-4"))
    assert parse("int4-g64 + lowrank-4").refuses((3, 8))
    assert parse("int4-g64 + lowrank-3").refuses((3, 8)) is None
    assert parse("int4-g64").refuses((1, 1)) is None
