import pytest
import torch

from whet.kernels.arithmetic import arithmetic, has_codes
from whet.kernels.gram import NARROWEST, STRIP, WIDE, Factor, add_gram, add_product
from whet.kernels.native import missing, native


def activations(tokens: int, channels: int) -> torch.Tensor:
    x = torch.randn(tokens, channels, generator=torch.Generator().manual_seed(0))
    x[3, 5] = 1000.0  # one token with nearly all of a channel's energy
    return x


@pytest.mark.parametrize("channels", [7, 64, WIDE + 24])
def test_exact_sums_are_those_of_outer_products(channels: int) -> None:
    x, total = activations(50, channels), torch.zeros(channels, channels)
    with arithmetic("exact"):
        add_gram(total, Factor(x[:20]))
        add_gram(total, Factor(x[20:]))
    torch.testing.assert_close(total.tril(), (x.T @ x).tril(), rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not has_codes(), reason="needs a processor that multiplies 8-bit integers")
@pytest.mark.parametrize("precision", ["mixed", "fast"])
@pytest.mark.parametrize("channels", [NARROWEST, WIDE])
def test_rounded_sums_stay_positive_and_near(channels: int, precision: str) -> None:
    x = activations(256, channels)
    total = torch.zeros(channels, channels)
    with arithmetic(precision):
        add_gram(total, Factor(x))
    found, true = total.tril() + total.tril(-1).T, x.T @ x
    size = true.diagonal().sqrt()
    assert ((found - true) / size[:, None] / size).abs().max() < 256 / (12 * 127**2) + 0.01
    assert torch.linalg.eigvalsh(found.double())[0] > -1e-6 * float(true.diagonal().max())


@pytest.mark.parametrize("precision", ["exact", "mixed", "fast"])
@pytest.mark.parametrize(("left", "right"), [(24, 40), (WIDE + STRIP // 2 + 8, NARROWEST)])
def test_products_of_two_activations(precision: str, left: int, right: int) -> None:
    if precision != "exact" and not has_codes():
        pytest.skip("needs a processor that multiplies 8-bit integers")
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.randn(600, size, generator=draw) for size in (left, right))
    total = torch.ones(left, right)
    with arithmetic(precision):
        add_product(total, Factor(x[:300]), Factor(y[:300]))
        add_product(total, Factor(x[300:]), Factor(y[300:]))
    size = x.square().sum(0).sqrt()[:, None] * y.square().sum(0).sqrt()
    assert ((total - 1 - x.T @ y) / size).abs().max() < 0.01


@pytest.mark.skipif(missing() is not None, reason="needs the native extension")
@pytest.mark.parametrize(("tokens", "channels"), [(1, 3), (257, 64), (300, 130)])
def test_native_sums_are_those_of_torch(tokens: int, channels: int) -> None:
    draw = torch.Generator().manual_seed(2)
    x, y = (torch.randn(tokens, channels, generator=draw) for _ in range(2))
    left, right = Factor(y, x), Factor(x)
    codes = left.codes.double().T @ right.codes.double()
    expected = 1 + codes.float().mul_(left.scale[:, None]) * right.scale
    for tier in native().tiers():
        for threads in (1, 3):
            ours, theirs = (
                native().Codes(y.numpy(), x.numpy(), tier, threads),
                native().Codes(x.numpy(), None, tier, threads),
            )
            total = torch.ones(channels, channels)
            native().add_products(total.numpy(), ours, theirs, tier, threads)
            torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
            assert torch.equal(torch.tensor(ours.scale), left.scale)
            energy = torch.tensor(ours.energy)
            torch.testing.assert_close(energy, (y - x).square().sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(missing() is not None, reason="needs the native extension")
def test_native_sums_of_one_factor_are_symmetric() -> None:
    codes = native().Codes(activations(50, 130).numpy(), None, "generic", 2)
    total = torch.zeros(130, 130)
    native().add_products(total.numpy(), codes, codes, "generic", 2)
    torch.testing.assert_close(total, total.T)


@pytest.mark.skipif(missing() is not None, reason="needs the native extension")
def test_native_sums_refuse_other_shapes() -> None:
    one, other = (native().Codes(activations(n, 8).numpy(), None, "generic", 1) for n in (8, 9))
    with pytest.raises(ValueError, match="same tokens"):
        native().add_products(torch.zeros(8, 8).numpy(), one, other, "generic", 1)
    with pytest.raises(ValueError, match="left channels"):
        native().add_products(torch.zeros(8, 9).numpy(), one, one, "generic", 1)
    with pytest.raises(ValueError, match="same shape"):
        native().Codes(activations(8, 8).numpy(), activations(8, 9).numpy(), "generic", 1)
