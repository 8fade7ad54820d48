import pytest
import torch

from whet.formats.spec import parse
from whet.formats.weight import Weight, written
from whet.kernels.arithmetic import arithmetic, has_codes
from whet.kernels.native import missing
from whet.kernels.rounded import rounded
from whet.model.linear import Linear, held

pytestmark = pytest.mark.skipif(
    missing() is not None or not has_codes(),
    reason="needs a processor that multiplies 8-bit integers",
)


def drawn(rows: int, cols: int, name: str = "bf16") -> Weight:
    return written(torch.randn(rows, cols, generator=torch.Generator().manual_seed(0)), parse(name))


@pytest.mark.parametrize("cols", [64, 96, 576])
def test_a_product_in_8_bits_is_near(cols: int) -> None:
    weight, x = drawn(48, cols), torch.randn(3, 400, cols)
    with arithmetic("mixed"):
        multiply = rounded(weight)
        assert multiply is not None
        found = multiply(x)
    expected = x @ weight.dense().T
    assert found.shape == expected.shape
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_codes_and_exact_arithmetic_are_not_rounded() -> None:
    with arithmetic("mixed"):
        assert rounded(drawn(8, 64, "int4-g64")) is None
    for precision in ("exact", "fast"):
        with arithmetic(precision):
            assert rounded(drawn(8, 64)) is None


def test_only_a_linear_that_may_round_does() -> None:
    linear, x = Linear(drawn(32, 64)), torch.randn(5, 64)
    with arithmetic("mixed"):
        plain = linear(x)
        with held([linear]):
            assert torch.equal(linear(x), plain)
        with held([linear], rounds=True):
            assert not torch.equal(linear(x), plain)
        assert torch.equal(linear(x), plain)
