"""Pruning against the textbook: explicit inverses, naive loops, float64."""

import pytest
import torch
from tests.problems import gathered, layer
from torch import Tensor

from whet.calibrate.statistics import Gram
from whet.formats.spec import parse
from whet.methods.prune.alps import Alps
from whet.methods.prune.ria import Ria
from whet.methods.prune.sparsegpt import SparseGpt
from whet.methods.prune.wanda import Wanda
from whet.methods.solve.admm import support

OUT, INPUTS = 6, 32
NONE = {"alpha": 0.0, "rho": 0.0}


def greatest(scores: list[float], count: int) -> set[int]:
    """Return where the greatest numbers are."""
    return set(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def textbook_mask(scores: Tensor, name: str) -> Tensor:
    """Keep the greatest of each group of four, or of each row."""
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for row in range(len(scores)):
        width = 4 if name == "2:4" else scores.shape[1]
        for start in range(0, scores.shape[1], width):
            some = scores[row, start : start + width].tolist()
            for place in greatest(some, len(some) // 2):
                mask[row, start + place] = True
    return mask


@pytest.mark.parametrize("name", ["2:4", "sparse50"])
def test_wanda_is_the_textbook(name: str) -> None:
    weight, x, _, _ = layer(OUT, INPUTS, seed=1)
    norms = torch.stack([torch.linalg.vector_norm(x[:, j].double()) for j in range(INPUTS)])
    mask = textbook_mask(weight.double().abs() * norms, name)
    ours = Wanda(format=parse(f"{name}(f32)")).rewrite(weight, gathered(x), "mlp.up", 0)
    assert torch.equal(ours.weight.dense(), weight * mask)


@pytest.mark.parametrize("name", ["2:4", "sparse50"])
def test_ria_is_the_textbook(name: str) -> None:
    weight, x, _, _ = layer(OUT, INPUTS, seed=2)
    scores = torch.zeros(OUT, INPUTS, dtype=torch.float64)
    for i in range(OUT):
        for j in range(INPUTS):
            size = float(weight[i, j].abs())
            share = size / float(weight[i].abs().sum()) + size / float(weight[:, j].abs().sum())
            scores[i, j] = share * float(torch.linalg.vector_norm(x[:, j].double())) ** 0.5
    ours = Ria(format=parse(f"{name}(f32)")).rewrite(weight, gathered(x), "mlp.up", 0)
    assert torch.equal(ours.weight.dense(), weight * textbook_mask(scores, name))


def textbook_sparsegpt(W: Tensor, H: Tensor, block: int, name: str) -> Tensor:
    """Prune block by block: errors go to all inputs to the right through the inverse of what is left."""
    W = W.clone()
    rows, inputs = W.shape
    gone = torch.zeros(W.shape, dtype=torch.bool)
    every = rows * inputs // 2
    for start in range(0, inputs, block):
        stop = start + block
        scores = torch.zeros(rows, block, dtype=torch.float64)
        for j in range(start, stop):  # [H⁻¹]_jj once the inputs before j are out
            inverse = torch.linalg.inv(H[j:, j:])
            scores[:, j - start] = W[:, j].square() / inverse[0, 0]
        if name == "2:4":
            for row in range(rows):
                stay = greatest(scores[row].tolist(), 2)
                gone[row, start:stop] = torch.tensor([k not in stay for k in range(block)])
        else:
            count = every * stop // inputs - every * start // inputs
            order = greatest((-scores).flatten().tolist(), count)
            for place in order:
                gone[place // block, start + place % block] = True
        for j in range(start, stop):
            inverse = torch.linalg.inv(H[j:, j:])
            error = W[:, j] * gone[:, j] / inverse[0, 0]
            W[:, j:] -= error.unsqueeze(1) * inverse[0]
            W[gone[:, j], j] = 0
    return W


@pytest.mark.parametrize(
    ("name", "block"), [("2:4", 4), ("sparse50-tensor", 8), ("sparse50-tensor", 32)]
)
def test_sparsegpt_is_the_textbook(name: str, block: int) -> None:
    weight, x, _, _ = layer(OUT, INPUTS, seed=3)
    stats = gathered(x)
    H = stats[Gram].mean().double()
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(INPUTS)
    expected = textbook_sparsegpt(weight.double(), damped, block, name)
    use = SparseGpt(format=parse(f"{name}(f32)"), block=block)
    ours = use.rewrite(weight, stats, "mlp.up", 0).weight.dense()
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-5)


def textbook_admm(w: Tensor, H: Tensor, name: str, turns: int) -> Tensor:
    """The iterations of ALPS for one row, with explicit inverses; returns the mask."""
    a = H.diagonal().sqrt()
    H, w = H / a / a[:, None], (w * a)[None]
    mask = textbook_mask(w.abs(), name)
    D, V, rho, seen = w * mask, torch.zeros_like(w), 0.1, mask
    for turn in range(1, turns + 1):
        X = (w @ H - V + rho * D) @ torch.linalg.inv(H + rho * torch.eye(len(H)))
        mask = textbook_mask((X + V / rho).abs(), name)
        D = (X + V / rho) * mask
        V = V + rho * (X - D)
        if turn % 3 == 0:
            change = float((mask != seen).sum()) / float(2 * mask.sum())
            if change == 0 and turn > 3:
                break
            rho *= 1.3 if change > 0.1 else 1.2 if change > 0.005 else 1.1
            seen = mask
    return mask[0]


def textbook_squares(w: Tensor, x: Tensor, ridge: float, own: Tensor) -> Tensor:
    """Least squares on a support; the rows beyond the tokens are what the damping stands for."""
    tokens = (x.double() / len(x) ** 0.5, ridge**0.5 * torch.eye(len(w), dtype=torch.float64))
    seen = torch.cat(tokens)
    found = torch.zeros(len(w), dtype=torch.float64)
    found[own] = torch.linalg.lstsq(seen[:, own], (seen @ w)[:, None]).solution[:, 0]
    return found


@pytest.mark.parametrize("name", ["2:4", "sparse50"])
@pytest.mark.parametrize("turns", [0, 5, 60])
def test_alps_is_the_textbook(name: str, turns: int) -> None:
    weight, x, _, _ = layer(OUT, INPUTS, seed=4)
    stats = gathered(x)
    H = stats[Gram].mean().double()
    ridge = 0.01 * float(H.diagonal().mean())
    damped = H + ridge * torch.eye(INPUTS)
    pattern = parse(f"{name}(f32)").pattern
    W = weight.double()
    masks = torch.stack([textbook_admm(row, damped, name, turns) for row in W])
    assert torch.equal(support(W.T.contiguous(), H, ridge, pattern, turns), masks)
    starts = textbook_mask(W.abs() * damped.diagonal().sqrt(), name)
    exact = torch.zeros_like(W)
    for row in range(OUT):
        tried = [textbook_squares(W[row], x, ridge, one[row]) for one in (masks, starts)]
        exact[row] = min(tried, key=lambda w: float((w - W[row]) @ damped @ (w - W[row])))
    use = Alps(format=parse(f"{name}(f32)"), turns=turns, **NONE)
    ours = use.rewrite(weight, stats, "mlp.up", 0).weight.dense().double()
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-5)
