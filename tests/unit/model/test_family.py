"""Names and sites of families."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.unit.model.tiny import source, stacked

from whet.base.errors import FolderError
from whet.model.decoder import load
from whet.model.family import Family, families, find
from whet.model.roles import INTERLEAVED, JOINED
from whet.model.site import Site, Stack
from whet.model.source import InMemory


def family_of(case: str) -> tuple[Family, tuple[Site, ...]]:
    family = find(source(case).config)
    return family, family.sites(family.architecture(source(case).config))


def test_the_light_package_knows_families():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'jaxtyping')));"
        "from whet.model import site, architecture, roles, config; from whet.model.family import *;"
        "config = dict(model_type='gpt2', n_embd=8, n_head=2, n_layer=1, vocab_size=5);"
        "family = find(config); arch = family.architecture(config);"
        "assert family.sites(arch) and family.tensors(arch) and len(families()) == 18"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sites_are_in_the_order_in_which_they_run():
    roles = [site.role for site in family_of("llama-tied")[1]]
    block = ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"]
    assert roles == ["embed", *block, *block, "head"]


def test_a_tied_head_says_what_it_shares():
    assert family_of("llama-tied")[1][-1].tied == "embed"
    assert family_of("llama")[1][-1].tied is None


def test_joined_matrices_are_the_sites_and_their_axes_say_what_they_join():
    found = {site.role: site for site in family_of("phi3")[1]}
    assert (found["attn.qkv"].out, found["attn.qkv"].shape) == (JOINED, (64, 32))
    assert (found["mlp.gate_up"].out, found["mlp.gate_up"].shape) == ("ffn+ffn", (96, 32))
    assert {site.role: site for site in family_of("gpt_neox")[1]}["attn.qkv"].out == INTERLEAVED


def test_routers_and_positions_are_skipped_and_said_why():
    family = find(source("mixtral").config)
    skipped = family.skipped(family.architecture(source("mixtral").config))
    assert list(skipped) == [f"model.layers.{i}.block_sparse_moe.gate" for i in range(2)]
    family = find(source("opt").config)
    skipped = family.skipped(family.architecture(source("opt").config))
    assert list(skipped) == ["model.decoder.embed_positions"]


def test_says_what_is_missing_where_the_weights_are_of_another_model():
    with pytest.raises(FolderError) as caught:
        load(InMemory(source("llama").config, source("gpt2").tensors))
    assert "model.embed_tokens" in caught.value.message


def test_says_which_tensor_is_missing_or_misshapen():
    usual, name = source("llama"), "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(FolderError, match=r"mlp\.up_proj\.weight"):
        load(InMemory(usual.config, {k: v for k, v in usual.tensors.items() if k != name}))
    with pytest.raises(FolderError, match=r"\(3, 3\)"):
        load(InMemory(usual.config, {**usual.tensors, name: torch.zeros(3, 3)}))


def test_buffers_that_nothing_needs_are_known():
    gpt2, neox = families()["gpt2"], families()["gpt_neox"]
    assert "transformer.h.0.attn.bias".endswith(gpt2.ignored)
    assert not "transformer.h.0.attn.c_attn.bias".endswith(gpt2.ignored)
    assert "gpt_neox.layers.0.attention.masked_bias".endswith(neox.ignored)
    assert not "gpt_neox.layers.0.attention.dense.bias".endswith(neox.ignored)


def test_experts_in_one_tensor_are_the_same_sites_as_experts_apart():
    apart, together = source("mixtral"), stacked("mixtral")
    family = find(apart.config)
    one = family.block_sites(family.architecture(apart.config, apart.names()), 1)
    two = family.block_sites(family.architecture(together.config, together.names()), 1)
    for x, y in zip(one, two, strict=True):
        assert (x.role, x.module, x.shape, x.tap) == (y.role, y.module, y.shape, y.tap)
        assert torch.equal(apart.weight(x).dense(), together.weight(y).dense())
    assert two[4].tensor == "model.layers.1.mlp.experts.gate_up_proj"


def test_a_site_orients_arrays_of_any_library():
    stored = np.arange(24).reshape(2, 4, 3)
    whole = Site("up", "m", (2, 3), "ffn", "hidden", "in", stack=Stack("t", 1, 2, 4))
    assert whole.tensor == "t"
    assert whole.oriented(stored).tolist() == stored[1, 2:4].tolist()
    turned = Site("up", "m", (3, 4), "ffn", "hidden", "in", transposed=True)
    assert turned.tensor == "m.weight"
    assert turned.oriented(stored[0]).tolist() == stored[0].T.tolist()
