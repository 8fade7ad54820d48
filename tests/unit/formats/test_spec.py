"""Names of formats and activations, and what they may mean."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.base.errors import RecipeError
from whet.formats import activation
from whet.formats.activation import Activation, parse_activation
from whet.formats.element import Integer, Learned, Log, Minifloat, Quantile
from whet.formats.spec import EXAMPLES, Coded, Float, Sum, parse, smaller_group


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_are_read_back(name):
    assert str(parse(name)) == name
    assert parse(str(parse(name))) == parse(name)


groupings = st.one_of(st.integers(1, 512), st.sampled_from(["channel", "tensor"]))
integers = st.tuples(
    st.just(Integer),
    st.tuples(st.integers(2, 8)),
    groupings,
    st.booleans(),
    st.sampled_from(["bf16", "f16", "f32", "e8m0", "e4m3"]),
)
tables = st.tuples(
    st.just(Quantile), st.tuples(st.integers(2, 8)), groupings, st.just(value=False),
    st.sampled_from(["bf16", "e8m0"]),
)  # fmt: skip
logs = st.tuples(
    st.just(Log),
    st.tuples(st.integers(2, 5), st.one_of(st.none(), st.floats(1.01, 4))),
    groupings,
    st.just(value=False),
    st.just("bf16"),
)
books = st.tuples(
    st.just(Learned), st.tuples(st.integers(2, 8), st.just(value=True), st.booleans()), groupings,
    st.just(value=False), st.just("f16"),
)  # fmt: skip


@given(st.lists(st.one_of(integers, tables, logs, books), min_size=1, max_size=3))
def test_every_value_has_a_name_that_is_read_back(drawn):
    terms = tuple(
        Coded(element(*settings), grouping, affine, scale)
        for element, settings, grouping, affine, scale in drawn
    )
    format_ = terms[0] if len(terms) == 1 else Sum(terms)
    assert parse(str(format_)) == format_


def test_short_names_and_spellings():
    assert parse("mxfp4") == parse("fp4-g32-e8m0") == Coded(Minifloat(2, 1), 32, scale="e8m0")
    assert parse("nvfp4") == Coded(Minifloat(2, 1), 16, scale="e4m3")
    assert str(parse("fp8-e4m3-g32-e8m0")) == "mxfp8"
    assert parse(" INT4-G64-Affine ") == parse("int4-g64-affine")
    assert parse("int4-g64-f16-affine") == parse("int4-g64-affine-f16")
    assert parse("BF16") == Float()
    assert parse("int2-g64+int2-g64") == parse("int2-g64 + int2-g64")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("int4", "int4-g64, int4-channel or int4-tensor"),
        ("int44-g8", "did you mean"),
        ("int4-64", "did you mean int4-g64"),
        ("nf4-g64x", "did you mean nf4-g64"),
        ("int9-g64", "expected 2 to 8"),
        ("nf4-g64-affine", "zero point"),
        ("log4-g64-base9", "at most 4"),
        ("log8-g64", "vanish"),
        ("int4-g64-tuned", "did you mean"),
        ("zebra", "formats are e.g."),
        ("apot7-g64", "expected 3 to 5"),
        ("codebook4-g64-int8", "one shared table"),
    ],
)
def test_wrong_names_say_what_is_wrong(name, hint):
    with pytest.raises(RecipeError, match=hint) as raised:
        parse(name)
    assert raised.value.code == 2
    assert str(raised.value).count("\n") <= 2


def test_sizes_are_the_known_bits_per_weight():
    def per_weight(name: str) -> float:
        return parse(name).bits((4096, 4096)) / 4096**2

    assert per_weight("int4-g64") == 4.25
    assert per_weight("int4-g64-affine") == 4.3125
    assert per_weight("int3-g64-affine") == pytest.approx(3.296875)
    assert per_weight("nvfp4") == pytest.approx(4.5, rel=1e-5)
    assert per_weight("mxfp4") == 4.25
    assert per_weight("bf16") == 16
    assert per_weight("codebook4-channel") == pytest.approx(4 + 17 * 16 / 4096)
    assert per_weight("codebook4-g32-shared-int8-f16") == pytest.approx(4.5, rel=1e-5)
    assert per_weight("int2-g64 + int2-g64") == 4.5


def test_ragged_groups_are_counted():
    planes = parse("int3-g64-affine").planes((10, 172))
    assert planes["codes"].shape == (10, 65)
    assert planes["scale"].shape == (10, 3)
    assert planes["zero"].shape == (4, 3)
    assert parse("int4-tensor-affine").planes((10, 172))["zero"].shape == (1, 1)


@pytest.mark.parametrize(
    ("name", "inputs", "smaller"),
    [
        ("int4-g64", 256, "int4-g64"),
        ("int4-g64", 172, "int4-g43"),
        ("int4-g32", 172, "int4-g32"),  # nothing from 16 to 32 divides
        ("int4-g64-affine", 96, "int4-g48-affine"),
        ("int4-g128", 96, "int4-g96"),
        ("int8-channel", 172, "int8-channel"),
        ("bf16", 172, "bf16"),
        ("int2-g64 + int2-g32", 96, "int2-g48 + int2-g32"),
    ],
)
def test_a_smaller_group_divides(name, inputs, smaller):
    assert str(smaller_group(parse(name), inputs)) == smaller


def test_names_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = sys.modules['jaxtyping'] = None;"
        "import whet.formats.spec as s, whet.formats.activation as a;"
        "[s.parse(n).bits((8, 8)) for n in s.EXAMPLES]; [a.parse_activation(n) for n in a.EXAMPLES]"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", activation.EXAMPLES)
def test_activation_names_are_read_back(name):
    assert str(parse_activation(name)) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("int8", "int8-token, int8"),
        ("int8-token-static", "fixed before"),
        ("fp8-e4m3-token-affine", "zero point"),
        ("int7-token", "did you mean int8-token"),
    ],
)
def test_wrong_activation_names_say_what_is_wrong(name, hint):
    with pytest.raises(RecipeError, match=hint):
        parse_activation(name)


def test_a_group_needs_its_size():
    with pytest.raises(RecipeError, match="group of 0"):
        Activation(strategy="group")
