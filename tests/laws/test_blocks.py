"""Laws of blocks, for every family: folding keeps the function, taps see what linears read."""

import copy

import pytest
import torch
from tests.unit.model.tiny import CASES, STACKED, source, stacked
from torch import Tensor

from whet.base.errors import NumericalError, UnsupportedError
from whet.model.attention import projected, separated
from whet.model.block import Block
from whet.model.decoder import load
from whet.model.fold import fold, foldable, readers
from whet.model.source import InMemory

TAPS = ("attn.in", "attn.out", "mlp.in", "mlp.mid", "mlp.experts.1.in", "mlp.experts.1.mid")
SOURCES = [*CASES, *(f"{case}/stacked" for case in STACKED)]


def opened(case: str, dtype: torch.dtype = torch.float32) -> InMemory:
    name, _, layout = case.partition("/")
    found = stacked(name) if layout else source(name)
    return InMemory(found.config, {k: v.to(dtype) for k, v in found.tensors.items()})


def block_of(case: str, dtype: torch.dtype = torch.float32) -> Block:
    return load(opened(case, dtype)).blocks[0]


def stream(seed: int = 0) -> Tensor:
    return torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(seed))


def scale_for(block: Block, tap: str) -> Tensor:
    width = block.linears[readers(block, tap)[0]].shape[1]
    return torch.rand(width, generator=torch.Generator().manual_seed(1)) * 3 + 0.2


def relative(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_folding_keeps_the_function(case: str, tap: str):
    block, x = block_of(case), stream()
    if foldable(block, tap) is not None:
        with pytest.raises(UnsupportedError):
            fold(block, tap, torch.ones(1))
        return
    before, old = block(x), seen(block, x)[tap]
    used = fold(block, tap, scale_for(block, tap))
    assert relative(block(x), before) < 3e-6
    assert relative(seen(block, x)[tap] * used, old) < 1e-6


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("case", ["llama", "gemma2", "qwen2", "llama-biases", "qwen3_moe"])
@torch.no_grad()
def test_folding_is_exact_where_gains_and_biases_are_rounded(case: str, tap: str):
    block, x = block_of(case, torch.bfloat16), stream()
    if foldable(block, tap) is not None:
        return
    before, dtypes = block(x), {k: v.dtype for k, v in block.extras().items()}
    used = fold(block, tap, scale_for(block, tap))
    assert relative(block(x), before) < 3e-6
    assert relative(used, scale_for(block, tap)) < 1  # near what was asked
    assert {k: v.dtype for k, v in block.extras().items()} == dtypes


@pytest.mark.parametrize(
    ("case", "tap", "reason"),
    [
        ("olmo2", "attn.in", "no norm"),
        ("olmo2", "mlp.in", "no norm"),
        ("opt-after", "attn.in", "no norm"),
        ("opt-bare", "mlp.in", "no gain"),
        ("gpt2", "mlp.mid", "gelu_tanh"),
        ("gpt_neox", "mlp.mid", "gelu"),
        ("mixtral", "mlp.experts.1.in", "share one norm"),
        ("mixtral", "mlp.mid", "no tap"),
    ],
)
def test_says_why_a_tap_cannot_be_folded(case: str, tap: str, reason: str):
    assert reason in (foldable(block_of(case), tap) or "")


def test_heads_that_share_values_share_their_scales_geometric_mean():
    block = block_of("llama")
    arch = block.arch
    scale = scale_for(block, "attn.out")
    heads = scale.view(arch.kv_heads, arch.group, arch.head_dim)
    used = fold(block, "attn.out", scale).view_as(heads)
    assert torch.allclose(used, heads.prod(1, keepdim=True).sqrt().expand_as(heads))


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.nan, torch.inf])
def test_refuses_a_scale_that_is_not_positive_and_finite(bad: float):
    with pytest.raises(NumericalError):
        fold(block_of("llama"), "attn.in", torch.full((32,), bad))


@torch.no_grad()
def test_a_gain_too_small_or_too_large_to_divide_keeps_its_scale():
    block, x = block_of("llama", torch.float16), stream()
    before = block(x)
    scale = torch.ones(32)
    scale[0], scale[1] = 1e9, 1e-9
    used = fold(block, "attn.in", scale)
    assert used[:2].tolist() == [1, 1]
    assert relative(block(x), before) < 3e-6


def seen(block: Block, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    block(x, tap=lambda name, value: found.update({name: value.clone()}))
    return found


@pytest.mark.parametrize("case", SOURCES)
@torch.no_grad()
def test_taps_are_seen_in_order_and_each_is_what_its_linears_read(case: str):
    block, x = block_of(case), stream()
    read: dict[str, Tensor] = {}
    for role, linear in block.linears.items():
        linear.register_forward_pre_hook(
            lambda _, args, role=role: read.update({role: args[0].clone()})
        )
    beside = (".residual", ".stream")
    found = {tap: value for tap, value in seen(block, x).items() if not tap.endswith(beside)}
    assert [tap for tap in block.taps if tap in found] == list(found)
    assert {site.tap for site in block.sites if site.role in read} <= set(found)
    for site in block.sites:
        if site.role in read:
            assert torch.equal(read[site.role], found[site.tap])


@pytest.mark.parametrize("case", [case for case in CASES if "mo" not in case and "mi" not in case])
@torch.no_grad()
def test_residual_taps_are_what_the_outputs_are_added_to(case: str):
    block, x = block_of(case), stream()
    after, found = block(x), seen(block, x)
    half = block.linears["mlp.down"](found["mlp.mid"])
    assert ("mlp.mid.residual" in found) == ("mlp.post" not in block.norms)
    assert ("attn.out.residual" in found) == ("attn.post" not in block.norms)
    if "mlp.mid.residual" in found and "mlp.sum" not in block.norms:
        assert relative(found["mlp.mid.residual"] + half, after) < 1e-6


@torch.no_grad()
def test_an_expert_sees_its_own_tokens_only():
    block = block_of("mixtral")
    found = seen(block, stream())
    counts = [v.shape[0] for k, v in found.items() if ".experts." in k and k.endswith(".in")]
    assert sum(counts) == 2 * 11 * 2  # two experts a token


@pytest.mark.parametrize("case", SOURCES)
def test_weights_are_held_as_they_are_stored(case: str):
    block = block_of(case, torch.bfloat16)
    assert {linear.weight.planes["value"].dtype for linear in block.linears.values()} == {
        torch.bfloat16
    }
    assert all(tensor.dtype == torch.bfloat16 for tensor in block.extras().values())


@torch.no_grad()
def test_a_copy_does_not_follow_the_original():
    block, x = block_of("llama"), stream()
    twin = copy.deepcopy(block)
    before = twin(x)
    fold(block, "mlp.in", scale_for(block, "mlp.in"))
    block.linears["mlp.down"].replace(block.linears["attn.o"].weight)
    assert torch.equal(twin(x), before)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_attention_is_what_mixes_the_values(case: str):
    block, x = block_of(case), stream()
    norm = block.norms.get("attn.pre")
    read = x if norm is None else norm(x)
    values = separated(projected(block.arch, block.linears, read)[2], block.arch.head_dim)
    share = block.attention(x)
    every = values.repeat_interleave(share.shape[1] // values.shape[1], 1)
    mixed = (share @ every).transpose(1, 2).flatten(2)
    assert relative(mixed, seen(block, x)["attn.out"]) < 1e-5
    assert torch.allclose(share.sum(-1), torch.ones(share.shape[:-1]), atol=1e-5)
    assert not share.triu(1).any()
