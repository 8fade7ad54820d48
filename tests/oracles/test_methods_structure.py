"""Slow twins of structured pruning: least squares by rows, greedy removal by refitting each time."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.structures import ids, model_of, outcome, task_of
from torch import Tensor

from whet.methods.solve.removal import greedy, importance, refitted
from whet.methods.structure.depth import Depth, influences
from whet.methods.structure.experts import Experts
from whet.methods.structure.gqa import Gqa
from whet.model import decoder
from whet.model.family import find

DAMPING = 0.01


def problem(seed: int, out: int = 5, inp: int = 8, tokens: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inp, inp, generator=generator)
    x = torch.randn(tokens, inp, generator=generator) @ mix
    return torch.randn(out, inp, generator=generator), x.double()


def ridge_of(H: Tensor) -> float:
    return DAMPING * float(H.diagonal().mean())


def fit(W: Tensor, x: Tensor, kept: list[int], ridge: float) -> Tensor:
    """Fit each output by the kept inputs, drawn to what its weights were, a row at a time."""
    found = torch.zeros(len(W), len(kept), dtype=torch.float64)
    count = len(x)
    for row, weights in enumerate(W.double()):
        rows = torch.cat([x[:, kept] / count**0.5, ridge**0.5 * torch.eye(len(kept))])
        wanted = torch.cat([x @ weights / count**0.5, ridge**0.5 * weights[kept]])
        found[row] = torch.linalg.lstsq(rows, wanted[:, None]).solution.flatten()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_refit_is_least_squares(seed: int) -> None:
    W, x = problem(seed)
    H = x.T @ x / len(x)
    kept = [0, 2, 3, 6]
    wanted = fit(W, x, kept, ridge_of(H[kept][:, kept]))
    found = refitted(W, H.float(), torch.tensor(kept), DAMPING)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4)


def cost(W: Tensor, H: Tensor, kept: list[int], ridge: float) -> float:
    """Return what the best weights on some columns cost, those of the others being zero."""
    damped = H + ridge * torch.eye(len(H), dtype=torch.float64)
    best = torch.zeros_like(W)
    best[:, kept] = torch.linalg.solve(damped[kept][:, kept], damped[kept] @ W.T).T
    delta = best - W
    return float(((delta @ damped) * delta).sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 2])
def test_the_greedy_removal_refits_after_each_group(seed: int, size: int) -> None:
    W, x = problem(seed)
    H = x.T @ x / len(x)
    left = list(range(8 // size))
    for _ in range(4 // size):
        ways = {g: [h for h in left if h != g] for g in left}
        costs = {
            g: cost(W.double(), H, [h * size + i for h in rest for i in range(size)], ridge_of(H))
            for g, rest in ways.items()
        }
        left.remove(min(costs, key=lambda group: costs[group]))
    assert greedy(W, H.float(), 4 // size, size, DAMPING).tolist() == left


@pytest.mark.parametrize("size", [1, 4])
def test_the_importance_is_the_energy_of_what_a_group_adds(size: int) -> None:
    W, x = problem(0)
    found = importance(W, (x.T @ x / len(x)).float(), "activation", size)
    for group in range(8 // size):
        own = slice(group * size, (group + 1) * size)
        energy = float((x[:, own] @ W.double()[:, own].T).square().sum(1).mean())
        assert float(found[group]) == pytest.approx(energy, rel=1e-4)


@torch.inference_mode()
def predictions(case: str, tokens: Tensor, without: int | None = None) -> Tensor:
    model = decoder.load(model_of(case))
    hidden = model.embedding(tokens)
    for layer, block in enumerate(model.blocks):
        hidden = hidden if layer == without else block(hidden)
    return model.head(hidden).double().log_softmax(-1)


@pytest.mark.parametrize("case", ["llama-tied", "gpt_neox", "opt"])
def test_greedy_depth_drops_the_layer_of_least_divergence(case: str, tmp_path: Path) -> None:
    done, _ = outcome(Depth(keep=1, samples=3, length=10), model_of(case), tmp_path)
    whole = predictions(case, ids(3, 10))
    costs = [
        float((whole.exp() * (whole - predictions(case, ids(3, 10), layer))).sum(-1).mean())
        for layer in range(2)
    ]
    ((site, facts),) = [(s, f) for s, f in done.facts.items() if s]
    assert site == f"layers.{costs.index(min(costs))}"
    assert facts["kl"].value == pytest.approx(min(costs), rel=1e-4)


@torch.inference_mode()
def test_influence_is_how_far_a_layer_turns_the_stream(tmp_path: Path) -> None:
    model = model_of("llama-tied")
    tokens, arch = ids(3, 10), find(model.config).architecture(model.config)
    loaded = decoder.load(model)
    hidden = [loaded.embedding(tokens)]
    for block in loaded.blocks:
        hidden.append(block(hidden[-1]))
    wanted = [1 - float(torch.cosine_similarity(x, y, -1).mean()) for x, y in pairwise(hidden)]
    assert influences(task_of(model, tmp_path), tokens, arch) == pytest.approx(wanted, rel=1e-3)


def test_shared_heads_are_means(tmp_path: Path) -> None:
    model = model_of("llama-biases")
    _, made = outcome(Gqa(heads=1), model, tmp_path)
    for part in ("k", "v"):
        name = f"model.layers.1.self_attn.{part}_proj"
        for kind in ("weight", "bias"):
            whole = model.tensor(f"{name}.{kind}")
            for row in range(8):
                mean = (whole[row] + whole[8 + row]) / 2
                torch.testing.assert_close(made[f"{name}.{kind}"][row], mean)


@torch.inference_mode()
def test_experts_are_worth_the_shares_that_they_get(tmp_path: Path) -> None:
    model = model_of("mixtral")
    _, made = outcome(Experts(keep=3, samples=3, length=10), model, tmp_path)
    loaded = decoder.load(model)
    seen: list[Tensor] = []
    loaded.blocks[0](
        loaded.embedding(ids(3, 10)),
        tap=lambda name, x: seen.append(x) if name == "mlp.in" else None,
    )
    name = "model.layers.0.block_sparse_moe.gate.weight"
    router, worth = model.tensor(name), [0.0] * 5
    for x in seen[0].flatten(0, 1):
        shares = (router @ x).softmax(-1)
        best = shares.argsort(descending=True)[:2].tolist()
        for expert in best:
            worth[expert] += float(shares[expert] / shares[best].sum())
    kept = sorted(sorted(range(5), key=lambda e: -worth[e])[:3])
    torch.testing.assert_close(made[name], router[kept])
