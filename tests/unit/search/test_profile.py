"""Machines described by files: laws of the roofline, and what is wrong with a file."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.base.errors import MissingError, RecipeError
from whet.formats.activation import parse_activation
from whet.formats.spec import EXAMPLES, SPARSE, parse
from whet.measure.product import Product
from whet.search.profile import Profile, Rates, dumps, loads, measured, read

PHONE = Profile("a phone", 2e10, 4e9, 4, 1e-6, 6e7, Rates(5e10, 4e11), Rates(4e10, 1e11))
SHAPES = st.tuples(st.integers(1, 16), st.integers(1, 16)).map(lambda n: (64 * n[0], 64 * n[1]))
FORMATS = st.sampled_from([parse(name) for name in (*EXAMPLES, *SPARSE)])
SIDES = st.lists(SHAPES, min_size=1, max_size=2).map(tuple)  # of matrices side by side
EXTRA = ("int4-g64 + lowrank-16", "int2-g64 + int2-g64", "lowrank-16", "2:4(int8-g64)")


@given(FORMATS, SIDES, st.integers(1, 1000), st.integers(1, 1000))
def test_more_rows_are_never_faster(format_, shapes, rows, more):
    product = Product(format_, shapes)
    assert PHONE.seconds(product, rows) <= PHONE.seconds(product, rows + more)


@given(SHAPES, st.integers(2, 8), st.integers(2, 8), st.integers(1, 600))
def test_more_bytes_are_never_faster(shape, bits, more, rows):
    few, many = (Product(parse(f"int{n}-g64"), (shape,)) for n in sorted((bits, more)))
    assert PHONE.seconds(few, rows) <= PHONE.seconds(many, rows)
    assert PHONE.nbytes(few) <= PHONE.nbytes(many)


@given(FORMATS, SIDES, st.integers(1, 600), st.floats(1.0, 10.0))
def test_a_better_machine_is_never_slower(format_, shapes, rows, factor):
    product = Product(format_, shapes)
    better = [
        replace(PHONE, bandwidth=PHONE.bandwidth * factor),
        replace(PHONE, overhead=PHONE.overhead / factor),
        replace(PHONE, int8=Rates(5e10 * factor, 4e11 * factor)),
    ]
    for machine in better:
        assert machine.seconds(product, rows) <= PHONE.seconds(product, rows)


def test_times_are_those_of_the_roofline_by_hand():
    int8, bf16, shape = parse("int8-channel"), parse("bf16"), (1024, 512)
    read_seconds = int8.bits(shape) / 8 / 2e10
    done = 2 * 2 * 1024 * 512 / 5e10  # an input of 16 bits is two of 8
    assert PHONE.seconds(Product(int8, (shape,)), 1) == pytest.approx(
        max(read_seconds, done) + 2e-6
    )
    many = 2 * 1024 * 512 * (1 / 4e10 + 511 / 1e11)
    assert PHONE.seconds(Product(bf16, (shape,)), 512) == pytest.approx(many + 2e-6)
    narrow = PHONE.seconds(Product(int8, (shape,), parse_activation("int8-token")), 1)
    assert narrow == pytest.approx(max(read_seconds, done / 2) + 2e-6)
    both = PHONE.seconds(Product(bf16, (shape, shape)), 512)
    assert both == pytest.approx(2 * many + 2e-6)


@pytest.mark.parametrize("name", EXTRA)
def test_sums_products_and_sparse_formats_have_times_and_sizes(name: str):
    product = Product(parse(name), ((128, 128),))
    assert PHONE.seconds(product, 1) > 0
    assert PHONE.nbytes(product) > 0
    assert PHONE.refuses(product) is None


def test_what_no_matrix_can_have_is_refused():
    assert "rank 16" in str(PHONE.refuses(Product(parse("lowrank-16"), ((128, 128), (8, 128)))))


def test_profiles_come_back_as_they_were(tmp_path: Path):
    assert loads(dumps(PHONE)) == PHONE
    (tmp_path / "profile.yaml").write_text(dumps(PHONE))
    assert read(tmp_path / "profile.yaml") == PHONE


def test_numbers_that_yaml_takes_for_words_are_read():
    assert loads(dumps(PHONE).replace("20000000000.0", "2e10")) == PHONE


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bandwidth: 20000000000.0", "bandwidth: -1", "bandwidth = -1; expected a number above 0"),
        ("bandwidth: 20000000000.0", "bandwidth: fast", "bandwidth = 'fast'"),
        ("bandwidth: 20000000000.0", "bandwidth: .inf", "bandwidth = inf"),
        ("bandwidth: 20000000000.0", "bandwidth: true", "bandwidth = True"),
        ("bandwidth:", "bandwith:", "did you mean bandwidth?"),
        ("threads: 4", "threads: 0", "threads = 0; expected an integer above 0"),
        ("threads: 4", "threads: 4.5", "threads = 4.5"),
        ("threads: 4\n", "", "lacks threads"),
        ("name: a phone", "name: 3", "name = 3; expected some words"),
        ("gemm: 100000000000.0", "gemm: 1", "bf16.gemm = 1 is less than bf16.gemv"),
        ("  gemm: 100000000000.0\n", "", "bf16 lacks gemm"),
        ("name: a phone", "name: [", "not valid YAML"),
    ],
)
def test_errors_say_what_is_wrong(old: str, new: str, said: str):
    text = dumps(PHONE)
    assert old in text
    with pytest.raises(RecipeError, match=said.replace("?", r"\?")):
        loads(text.replace(old, new))


@pytest.mark.parametrize("text", ["", "3", "[1]", "a: &x [*x]", "[" * 2000])
def test_what_is_no_profile_is_refused(text: str):
    with pytest.raises(RecipeError):
        loads(text)


def test_files_that_cannot_be_profiles_are_named(tmp_path: Path):
    with pytest.raises(MissingError, match="no profile at"):
        read(tmp_path / "none.yaml")
    (tmp_path / "large.yaml").write_text(" " * 70_000)
    with pytest.raises(RecipeError, match="at most"):
        read(tmp_path / "large.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="UTF-8"):
        read(tmp_path / "bytes.yaml")
    (tmp_path / "wrong.yaml").write_text("name: x")
    with pytest.raises(RecipeError, match=r"wrong\.yaml: a profile lacks"):
        read(tmp_path / "wrong.yaml")


def test_this_machine_has_a_profile():
    found = measured(1)
    assert loads(dumps(found)) == found
    assert found.threads == 1
    assert found.int8.gemv <= found.int8.gemm
    assert 1e7 < found.process < found.memory
    assert found.seconds(Product(parse("int4-g64"), ((256, 256),)), 1) > 0
