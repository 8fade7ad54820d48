"""Times of single linears in the engine: every kind of format, and the sizes of layouts."""

import numpy as np
import pytest

from whet.formats.spec import parse
from whet.graph.executors.native import input_key
from whet.measure import product
from whet.measure.product import COUNTED, Copies, Product, Stopwatch

KINDS = ("int4-g16", "int8-channel", "bf16", "nf4-g16", "int2-g16 + int2-g16", "lowrank-4",
         "int4-g16 + lowrank-4", "2:4(int8-g16)", "2:4(int4-g16)", "sparse50(bf16)",
         "sparse50(int8-g16)", "sparse30-tensor(int8-g16)", "mxfp4",
         "nvfp4", "codebook4-g16", "log4-g16-tuned", "int3-g16-affine", "mxfp8")  # fmt: skip


@pytest.fixture(scope="module")
def watch() -> Stopwatch:
    return Stopwatch(2, 1 << 16)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "ENOUGH", 0.0)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_format_is_timed_as_the_engine_runs_it(name: str, watch: Stopwatch):
    one, two = (Product(parse(name), ((48, 32),) * n) for n in (1, 2))
    assert watch.refuses(one) is None
    for rows in (1, 9):
        found = watch.time(one, rows)
        assert 0 < found.seconds < 1
    assert watch.time(two, 3).nbytes == 2 * found.nbytes


def test_matrices_of_several_heights_lie_side_by_side(watch: Stopwatch):
    found = watch.time(Product(parse("int4-g16"), ((32, 32), (16, 32), (16, 32))), 5)
    assert found.seconds > 0


def test_copies_fill_the_memory_of_a_model():
    few, many = Stopwatch(1, 1 << 12), Stopwatch(1, 1 << 20)
    whole = Product(parse("int8-channel"), ((64, 64),))
    first = product._layouts(whole, few.tier, "int8")
    size = sum(layout.nbytes for layout in first.values())
    assert Copies(few, whole, first, 512).count == max(1, (1 << 12) // size)
    assert Copies(many, whole, first, 512).count == (1 << 20) // (-(-size // 64) * 64)
    assert Copies(many, whole, first, 3).count == 3


def test_a_matrix_larger_than_the_model_is_timed_too():
    assert Stopwatch(1, 1).time(Product(parse("f32"), ((64, 64),)), 1).nbytes > 4 * 64 * 64


def test_inputs_are_shared_where_the_engine_shares_them(watch: Stopwatch):
    whole = Product(parse("int4-g16"), ((32, 32), (16, 32)))
    copies = Copies(watch, whole, product._layouts(whole, watch.tier, "int8"), 2)
    graph = product._graph(copies)
    linears = [op for op in graph.ops if op.name == "linear"]
    assert [op.name for op in graph.ops].count("quantize") == len(linears) == 2
    assert all(input_key(copies, linear) for linear in linears)


def test_other_operators_are_not_counted(watch: Stopwatch):
    whole = Product(parse("int4-g16"), ((32, 32),))
    copies = Copies(watch, whole, product._layouts(whole, watch.tier, "int8"), 4)
    run = product._Run(copies, 2)
    assert sum(run.counted) == len(run.once()) == 8
    assert {"prepare", "linear"} <= COUNTED


def test_masks_keep_what_the_pattern_says():
    form = parse("2:4(int8-g16)")
    bits = np.unpackbits(product._mask(form, (8, 32)), axis=1, bitorder="little")
    assert (bits.reshape(8, 8, 4).sum(2) == 2).all()


def test_what_no_matrix_can_have_is_refused(watch: Stopwatch):
    assert "rank 40" in str(watch.refuses(Product(parse("lowrank-40"), ((48, 32),))))
    assert "do not divide" in str(watch.refuses(Product(parse("3:7(bf16)"), ((48, 32),))))
