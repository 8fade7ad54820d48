"""Laws of statistics and methods on the blocks of every kind of family."""

from pathlib import Path

import pytest
import torch
from tests.blocks import observing, recorded, spooled
from tests.unit.model.tiny import CASES, source
from torch import Tensor

from whet.calibrate.carried import Carried
from whet.calibrate.statistics import Cross, Gram, Residual
from whet.calibrate.sweep import advance, observe
from whet.formats.spec import parse
from whet.methods.quantize.activations import Activations
from whet.methods.quantize.awq import Awq
from whet.methods.quantize.gptq import Gptq
from whet.methods.quantize.smoothquant import SmoothQuant
from whet.model.block import Block
from whet.model.decoder import load
from whet.model.fold import fold, foldable
from whet.passes.block_pass import BlockPass

EQUALISERS = [Awq(format=parse("int3-g16"), steps=2), SmoothQuant()]


def block_of(case: str) -> Block:
    return load(source(case)).blocks[0]


def stream(seed: int = 0) -> Tensor:
    x = torch.randn(4, 11, 32, generator=torch.Generator().manual_seed(seed))
    x[..., 5] *= 8
    return x


def all_roles(block: Block) -> tuple[str, ...]:
    return tuple(site.role for site in block.sites)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("use", EQUALISERS, ids=lambda use: use.name)
@torch.no_grad()
def test_rescaling_changes_nothing_that_a_block_computes(
    tmp_path: Path, case: str, use: BlockPass
) -> None:
    block, x = block_of(case), stream()
    before = block(x)
    change = use.rewrite(block, all_roles(block), observing(block, spooled(tmp_path / "x", x)))
    for tap, scale in change.folds.items():
        fold(block, tap, scale)
    assert float((block(x) - before).norm() / before.norm()) < 1e-5
    for tap, why in change.fallbacks.items():
        assert foldable(block, tap) is not None or "no calibration token" in why


@torch.no_grad()
def test_experts_are_rescaled_together_by_what_all_of_them_read(tmp_path: Path) -> None:
    block, x = block_of("qwen3_moe"), stream()
    observe_ = observing(block, spooled(tmp_path / "x", x))
    change = SmoothQuant().rewrite(block, all_roles(block), observe_)
    assert "mlp.in" in change.folds
    assert not any(tap.startswith("mlp.experts") and tap.endswith(".in") for tap in change.folds)
    peak = recorded(block, x)["mlp.in"].abs().amax(0)
    readers = [s.role for s in block.sites if ".experts." in s.tap and s.tap.endswith(".in")]
    weight = torch.cat([block.linears[role].weight.dense() for role in readers]).abs().amax(0)
    torch.testing.assert_close(change.folds["mlp.in"], (peak / weight).sqrt())


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe"])
def test_each_expert_counts_its_own_tokens(tmp_path: Path, case: str) -> None:
    block, x = block_of(case), stream()
    spool = spooled(tmp_path / "x", x)
    taps = [tap for tap in block.taps if ".experts." in tap]
    pair = Carried(spool), Carried(spool)
    stats = {tap: observe(block, block, *pair, tap, (Gram, Cross), 2) for tap in taps}
    assert block.arch.experts is not None
    total = sum(stats[tap].tokens for tap in taps if tap.endswith(".in"))
    assert total == 44 * block.arch.experts.active
    assert all(one[Cross].tokens == 0 for one in stats.values()), "no pairs behind a router"
    for tap in taps:
        role = next(site.role for site in block.sites if site.tap == tap)
        weight = block.linears[role].weight.dense()
        done = Gptq(format=parse("int4-g16"), least_tokens=0.25).rewrite(
            weight, stats[tap], role, 0
        )
        starved = stats[tap].tokens < 0.25 * weight.shape[1]
        assert (done.fallback is not None) == starved


@pytest.mark.parametrize("case", ["llama", "gpt_neox", "opt", "gemma2", "olmo2"])
def test_the_drift_of_the_residual_stream_is_seen_where_it_is_added_to(
    tmp_path: Path, case: str
) -> None:
    block, ideal = block_of(case), block_of(case)
    x, y = stream(0), stream(1)
    pair = Carried(spooled(tmp_path / "x", x)), Carried(spooled(tmp_path / "y", y))
    for tap in ("attn.out", "mlp.mid"):
        stats = observe(block, ideal, *pair, tap, (Residual,), 3)
        here, there = recorded(block, x), recorded(ideal, y)
        known = f"{tap}.residual" in here
        assert known == (case not in {"gemma2", "olmo2"}), "not where a norm stands between"
        assert (stats[Residual].tokens > 0) == known
        if known:
            pull = there[f"{tap}.residual"] - here[f"{tap}.residual"]
            expected = pull.T @ here[tap] / len(pull)
            torch.testing.assert_close(stats[Residual].mean(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_activations_are_quantized_where_they_are_asked_to_be(tmp_path: Path, case: str) -> None:
    block, x = block_of(case), stream()
    before = block(x)
    change = Activations().rewrite(
        block, all_roles(block), observing(block, spooled(tmp_path / "x", x))
    )
    assert set(change.activations) == set(block.linears)
    for role, (activation, scale) in change.activations.items():
        block.linears[role].activation, block.linears[role].input_scale = activation, scale
    error = float((block(x) - before).norm() / before.norm())
    assert 0 < error < (0.03 if block.router is None else 0.2), "a router may choose otherwise"


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_samples_carried_from_tap_to_tap_are_seen_as_if_they_began_anew(
    tmp_path: Path, case: str
) -> None:
    block, x = block_of(case), stream()
    carried, other = Carried(spooled(tmp_path / "x", x)), spooled(tmp_path / "z", x)
    for tap in (*block.taps, *block.taps):
        there = observe(block, None, carried, None, tap, (Gram,), 2)
        anew = Carried(other)
        fresh = observe(block, None, anew, None, tap, (Gram,), 2)
        anew.rewind()
        assert torch.equal(there[Gram].total, fresh[Gram].total)
        assert there.tokens == fresh.tokens
        left = advance(block, carried, tmp_path / "y", 3).read(0, len(x))
        torch.testing.assert_close(left, block(x), rtol=1e-5, atol=1e-5)
    carried.delete()
    assert not list(tmp_path.iterdir())
