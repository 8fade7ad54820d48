"""Low-rank methods against the textbook: whitening by an explicit inverse, EoRA's eigenspace, float64."""

import pytest
import torch
from tests.problems import gathered, layer, textbook_shares
from torch import Tensor

from whet.calibrate.statistics import Cross, Gram, Residual
from whet.formats.codecs import codec_of
from whet.formats.lowrank import Corrected, LowRank
from whet.formats.spec import parse
from whet.methods.lowrank.residual import CodesAndProduct
from whet.methods.lowrank.svd import Svd
from whet.methods.quantize.gptq import Gptq

PLAIN = {"alpha": 0.0, "alpha_down": 0.0, "rho": 0.0}


def damped(x: Tensor, damping: float = 0.01) -> Tensor:
    H = x.double().T @ x.double()
    return H + damping * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)


def textbook_whitened(W: Tensor, H: Tensor, rank: int) -> Tensor:
    """SVD-LLM: S the Cholesky factor of H, the SVD of W S truncated, S taken back out."""
    S = torch.linalg.cholesky(H)
    U, s, V = torch.linalg.svd(W.double() @ S, full_matrices=False)
    return U[:, :rank] @ torch.diag(s[:rank]) @ V[:rank] @ torch.linalg.inv(S)


def textbook_eora(left: Tensor, H: Tensor, rank: int) -> Tensor:
    """EoRA: the error in the eigenspace of H, truncated, and brought back."""
    size, Q = torch.linalg.eigh(H)
    Q = Q @ torch.diag(size.sqrt())
    U, s, V = torch.linalg.svd(left.double() @ Q, full_matrices=False)
    return U[:, :rank] @ torch.diag(s[:rank]) @ V[:rank] @ torch.linalg.inv(Q)


def textbook_target(W: Tensor, x: Tensor, ideal: Tensor, drift: Tensor, H: Tensor) -> Tensor:
    inverse = torch.linalg.inv(H)
    alpha, rho = textbook_shares(ideal, drift, x, inverse)
    moved = alpha * W.double() @ (ideal - x).double().T @ x.double()
    moved += rho[:, None] * drift.double().T @ x.double()
    return W.double() + moved @ inverse


@pytest.mark.parametrize(("out", "inputs"), [(12, 32), (40, 16)])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_whitened_svd_is_the_textbooks(out: int, inputs: int, rank: int) -> None:
    W, x, _, _ = layer(out, inputs)
    done = Svd(format=parse(f"lowrank-{rank}(f32)"), **PLAIN).rewrite(W, gathered(x), "mlp.up", 0)
    expected = textbook_whitened(W, damped(x), rank).float()
    torch.testing.assert_close(done.weight.dense(), expected, rtol=1e-3, atol=1e-4)


def test_plain_svd_is_torchs() -> None:
    W = layer()[0]
    done = Svd(format=parse("lowrank-5(f32)"), norm="plain").rewrite(W, gathered(layer()[1]), "", 0)
    U, s, V = torch.linalg.svd(W.double())
    expected = (U[:, :5] * s[:5]) @ V[:5]
    torch.testing.assert_close(done.weight.dense(), expected.float(), rtol=1e-4, atol=1e-6)


def test_weighing_channels_is_asvds() -> None:
    W, x, _, _ = layer()
    use = Svd(format=parse("lowrank-4(f32)"), norm="channels", **PLAIN)
    S = damped(x).diagonal().sqrt()
    U, s, V = torch.linalg.svd(W.double() * S)
    expected = (U[:, :4] * s[:4]) @ V[:4] / S
    found = use.rewrite(W, gathered(x), "mlp.up", 0).weight.dense()
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-5)


def test_what_earlier_layers_lost_moves_the_target() -> None:
    W, x, ideal, drift = layer()
    use = Svd(format=parse("lowrank-6(f32)"), alpha=1.0, alpha_down=1.0, rho=1.0)
    found = use.rewrite(W, gathered(x, ideal, drift), "mlp.down", 0).weight.dense()
    H = damped(x)
    expected = textbook_whitened(textbook_target(W, x, ideal, drift, H), H, 6).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_product_beside_codes_is_eoras() -> None:
    W, x, _, _ = layer()
    use = CodesAndProduct(format=parse("int3-g16 + lowrank-4(f32)"), rounds=0, **PLAIN)
    done = use.rewrite(W, gathered(x), "mlp.up", 0)
    alone = Gptq(format=parse("int3-g16"), **PLAIN).rewrite(W, gathered(x), "mlp.up", 0)
    codec = codec_of(done.weight.format)
    assert isinstance(codec, Corrected)
    left = W - alone.weight.dense()
    expected = alone.weight.dense() + textbook_eora(left, damped(x), 4).float()
    torch.testing.assert_close(done.weight.dense(), expected, rtol=1e-3, atol=1e-4)


def test_a_product_in_codes_beats_rounding_its_factors() -> None:
    W, x, _, _ = layer(24, 64, tokens=512)
    H, format_ = damped(x), parse("lowrank-8(int3-g16)")
    codec = codec_of(format_)
    assert isinstance(codec, LowRank)
    found = Svd(format=format_, **PLAIN).rewrite(W, gathered(x), "mlp.up", 0).weight.dense()
    U, s, _ = torch.linalg.svd(W.double() @ torch.linalg.cholesky(H), full_matrices=False)
    left, right = U[:, :8], U[:, :8].T @ W.double()
    rounded = codec.inner.decode(codec.inner.encode(left.float()), (24, 8))
    planes = codec.inner.encode(right.float())
    plain = rounded @ codec.inner.decode(planes, (8, 64))

    def lost(P: Tensor) -> float:
        delta = P.double() - W.double()
        return float((delta @ H * delta).sum())

    assert s[8:].square().sum() <= lost(found) < lost(plain)


def test_only_what_is_needed_is_asked_for() -> None:
    assert Svd(norm="plain").needs == ()
    assert Svd(**PLAIN).needs == (Gram,)
    assert Svd().needs == CodesAndProduct().needs == (Gram, Cross, Residual)
