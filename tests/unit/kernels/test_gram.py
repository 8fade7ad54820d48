import pytest
import torch

from whet.kernels.arithmetic import arithmetic, has_fast
from whet.kernels.gram import STRIP, WIDE, add_gram, add_product


def activations(tokens: int, channels: int) -> torch.Tensor:
    x = torch.randn(tokens, channels, generator=torch.Generator().manual_seed(0))
    x[3, 5] = 1000.0  # one token with nearly all of a channel's energy
    return x


@pytest.mark.parametrize("channels", [7, 64, WIDE + 24])
def test_exact_sums_are_those_of_outer_products(channels: int) -> None:
    x, total = activations(50, channels), torch.zeros(channels, channels)
    with arithmetic("exact"):
        add_gram(total, x[:20])
        add_gram(total, x[20:])
    torch.testing.assert_close(total.tril(), (x.T @ x).tril(), rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not has_fast(), reason="needs a processor that multiplies bfloat16")
def test_rounded_sums_stay_positive_and_near() -> None:
    x = activations(256, WIDE)
    total = torch.zeros(WIDE, WIDE)
    with arithmetic("fast"):
        add_gram(total, x)
    found, true = total.tril() + total.tril(-1).T, x.T @ x
    size = true.diagonal().sqrt()
    assert ((found - true) / size[:, None] / size).abs().max() < 256 / (12 * 127**2) + 0.01
    assert torch.linalg.eigvalsh(found.double())[0] > -1e-6 * float(true.diagonal().max())


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize(("left", "right"), [(24, 40), (WIDE + STRIP // 2 + 8, 64)])
def test_products_of_two_activations(precision: str, left: int, right: int) -> None:
    if precision == "fast" and not has_fast():
        pytest.skip("needs a processor that multiplies bfloat16")
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.randn(200, size, generator=draw) for size in (left, right))
    total = torch.ones(left, right)
    with arithmetic(precision):
        add_product(total, x[:120], y[:120])
        add_product(total, x[120:], y[120:])
    size = x.square().sum(0).sqrt()[:, None] * y.square().sum(0).sqrt()
    assert ((total - 1 - x.T @ y) / size).abs().max() < 0.01
