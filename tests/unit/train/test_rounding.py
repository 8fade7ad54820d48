"""Codes and scales that are trained: they begin as they are and are written as they compute."""

from functools import cache
from pathlib import Path

import pytest
import torch
from tests.blocks import demo_block, hidden, spooled
from tests.unit.model.tiny import source
from tests.unit.train.models import noised, task, text
from torch import Tensor

from whet.base.errors import RecipeError
from whet.formats.activation import Activation
from whet.formats.codec import Search
from whet.formats.spec import Sparse, parse
from whet.formats.weight import Weight, written
from whet.methods.distill.distill import Distill
from whet.methods.distill.qat import Qat
from whet.methods.quantize.reconstruct import Reconstruct
from whet.methods.solve.nearest import nearest
from whet.model.block import Block
from whet.model.decoder import Model, load
from whet.model.linear import Linear
from whet.model.site import Site
from whet.model.source import InMemory
from whet.passes.block_pass import Change
from whet.recipe.flow import flowing
from whet.train.apart import unrounded
from whet.train.rounding import Rounded

FORMATS = [
    "int2-g16-affine",
    "int4-g16",
    "int3-g16-e8m0",
    "nf4-g16",
    "fp8-e4m3-channel",
    "int8-tensor",
    "2:4(int4-g8-affine)",
    "sparse50(nf4-g16)",
]
SHORT = {"tokens": 20 * 8 * 16, "length": 16, "batch": 8, "prompt": 4}


def linear(format_: str, seed: int = 0) -> Linear:
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(seed))
    return Linear(near(weight, format_))


def near(weight: Tensor, format_: str) -> Weight:
    wanted = parse(format_)
    sparse = isinstance(wanted, Sparse)
    return written(weight, wanted) if sparse else nearest(weight, wanted, Search("mse", 8))


@pytest.mark.parametrize("format_", FORMATS)
def test_it_begins_as_it_is_and_is_written_as_it_computes(format_):
    given = linear(format_)
    made = Rounded(given)
    assert torch.equal(made.dense().detach(), given.weight.dense())
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        (made(torch.randn(7, 40)) - 1).square().mean().backward()
        optimizer.step()
        made.settle()
    after = made.coded()
    assert after.format == given.weight.format
    if isinstance(after.format, Sparse):
        assert torch.equal(after.planes["mask"], given.weight.planes["mask"])
    moved = not torch.equal(after.dense(), given.weight.dense())
    assert moved or "e8m0" in format_  # powers of two move late
    assert torch.equal(after.dense(), made.dense().detach())


def test_frozen_codes_stay_and_their_scales_move():
    given = linear("int3-g16")
    made = Rounded(given, frozen=True)
    made(torch.randn(7, 40)).square().mean().backward()
    with torch.no_grad():
        made.growth -= 0.1 * made.growth.grad.sign()
    after = made.coded()
    assert torch.equal(after.planes["codes"], given.weight.planes["codes"])
    assert not torch.equal(after.planes["scale"], given.weight.planes["scale"])


def test_latents_lean_to_the_weight_that_was_rounded_and_no_code_changes():
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    made = Rounded(Linear(near(weight, "int2-g8-affine")))
    before = made.dense().detach()
    made.lean(-weight[:, torch.arange(39, -1, -1)] * 5)
    assert torch.equal(made.latent, made.latent.round()), "that is another matrix"
    made.lean(weight)
    assert torch.equal(made.dense().detach(), before)
    ratio = weight / made.codec.spread(made.params.scale, made.columns)
    near_by = (ratio - made.latent.round()).abs() < 0.4
    assert torch.allclose(made.latent[near_by], ratio[near_by], atol=1e-5)


def test_the_gradient_of_a_scale_is_that_of_its_units():
    given = linear("int3-g40-f32")
    made, x = Rounded(given), torch.randn(7, 40)
    made(x).sum().backward()
    unit = made.dense().detach() / made.params.scale
    expected = made.params.scale * (unit * x.sum(0)).sum(1, keepdim=True)  # of log scale
    assert torch.allclose(made.growth.grad, expected, rtol=1e-4, atol=1e-4)


def rounded(block: Block, format_: str) -> None:
    for role in block.linears:
        weight = block.linears[role].weight.dense()
        block.linears[role].replace(near(weight, format_))


def reconstructed(tmp_path: Path, block: Block, use: Reconstruct, x: Tensor) -> Change:
    spool = spooled(tmp_path / "x", x)
    into = tmp_path / "leaving"
    with flowing(block, demo_block(), spool, spool, into, lambda *_: None, 4) as flow:
        change = use.rewrite(block, tuple(block.linears), flow)
    assert not into.exists()
    return change


@pytest.mark.parametrize(
    "format_", ["int2-g32-affine", "int3-g32", "nf4-g32", "2:4(int4-g32)", "sparse50(bf16)"]
)
def test_a_block_gives_more_nearly_what_it_gave(tmp_path: Path, format_):
    block, x = demo_block(), hidden(demo_block().arch.hidden, samples=8, time=24)
    rounded(block, format_)
    formats = {role: linear_.weight.format for role, linear_ in block.linears.items()}
    with torch.no_grad():
        ideal = demo_block()(x)
        before = float((block(x) - ideal).square().sum())
    change = reconstructed(tmp_path, block, Reconstruct(steps=30, batch=4), x)
    for role, weight in change.weights.items():
        assert weight.format == formats[role]
        if isinstance(weight.format, Sparse):
            kept = block.linears[role].weight.planes["mask"]
            assert torch.equal(weight.planes["mask"], kept)
        block.linears[role].replace(weight)
    with torch.no_grad():
        after = float((block(x) - ideal).square().sum())
    assert after < (0.99 if format_ == "nf4-g32" else 0.9) * before
    facts = change.facts["block"]
    assert facts["block_error"].value < facts["block_error_before"].value


def test_pruned_weights_of_a_block_stay_pruned(tmp_path: Path):
    block, x = demo_block(), hidden(demo_block().arch.hidden, samples=8, time=24)
    masks: dict[str, Tensor] = {}
    for role, linear_ in block.linears.items():
        dense = linear_.weight.dense()
        masks[role] = dense.abs() > dense.abs().median()
        value = (dense * masks[role]).to(linear_.weight.planes["value"].dtype)
        linear_.replace(Weight(linear_.weight.format, {"value": value}, linear_.weight.shape))
    change = reconstructed(tmp_path, block, Reconstruct(steps=30), x)
    assert change.weights.keys() == masks.keys()
    for role, weight in change.weights.items():
        assert not (weight.dense() != 0)[~masks[role]].any()


def test_a_block_that_cannot_be_bettered_is_left_as_it_is(tmp_path: Path):
    x = hidden(demo_block().arch.hidden, samples=4, time=16)
    change = reconstructed(tmp_path, demo_block(), Reconstruct(steps=2), x)
    assert not change.weights
    assert "left as it was" in change.fallbacks["block"]


@torch.no_grad()
def test_a_block_that_is_made_trainable_computes_the_same():
    block, x = demo_block(), hidden(demo_block().arch.hidden)
    rounded(block, "int4-g32")
    for linear_ in block.linears.values():
        linear_.activation = Activation()
    made = unrounded(block, ("attn.q", "mlp.down"))
    assert torch.allclose(made(x), block(x), atol=1e-4)


@torch.no_grad()
def apart(model: Model, original: InMemory) -> float:
    ids = text(200, 16)[150:]
    p, q = load(original)(ids).log_softmax(-1), model(ids).log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@cache
def codes_of(format_: str, module: str) -> Weight:
    sites = load(source("llama")).blocks
    found = {s.module: b.linears[s.role].weight for b in sites for s in b.sites}
    return near(found[module].dense(), format_)


class Coded(InMemory):
    """A source whose linears inside blocks are codes."""

    def weight(self, site: Site) -> Weight:
        return InMemory.weight(self, site) if site.layer is None else codes_of(FORMAT, site.module)


FORMAT = "int3-g16"


@pytest.mark.parametrize("format_", ["int2-g16-affine", "nf4-g16"])
@pytest.mark.parametrize("codes", [True, False])
def test_training_that_knows_of_rounding_brings_the_codes_nearer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_, codes
):
    monkeypatch.setitem(globals(), "FORMAT", format_)
    original = source("llama")
    rounded_ = Coded(original.config, original.tensors)
    use = Qat(**SHORT, codes=codes, lr=3e-3, lr_code=0.005, lr_scale=0.01)
    done = use.run(task(tmp_path, rounded_, original))
    changed = Coded(original.config, dict(original.tensors) | dict(done.tensors))
    model = load(changed)
    weights = list(done.weights)
    assert len(weights) == 14
    for site, weight in weights:
        assert weight.format == parse(format_)
        model.blocks[site.layer or 0].linears[site.role].replace(weight)
    assert apart(model, original) < 0.9 * apart(load(rounded_), original)


def test_what_a_sparse_format_keeps_is_trained_and_its_mask_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(globals(), "FORMAT", "2:4(bf16)")
    original = source("llama")
    pruned = Coded(original.config, original.tensors)
    done = Distill(**SHORT, lr=3e-3, keep_zeros=False).run(task(tmp_path, pruned, original))
    changed = Coded(original.config, dict(original.tensors) | dict(done.tensors))
    model, weights = load(changed), list(done.weights)
    assert len(weights) == 14
    for site, weight in weights:
        assert weight.format == parse("2:4(bf16)")
        assert torch.equal(weight.planes["mask"], pruned.weight(site).planes["mask"])
        model.blocks[site.layer or 0].linears[site.role].replace(weight)
    assert apart(model, original) < 0.8 * apart(load(pruned), original)


def test_qat_without_codes_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="no weight that is a code"):
        Qat(**SHORT).run(task(tmp_path, noised(source("llama"), 0.01)))


def test_codes_that_are_not_asked_for_stay_as_they_are(tmp_path: Path):
    original = source("llama")
    rounded_ = Coded(original.config, original.tensors)
    done = Distill(**SHORT, scope="norms").run(task(tmp_path, rounded_, original))
    assert not list(done.weights)
    assert {name for name, _ in done.tensors} == {n for n in original.names() if "norm" in n}
