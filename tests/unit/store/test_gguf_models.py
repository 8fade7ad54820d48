"""GGUF files as folders: the model, its tokenizer and its formats are those of the original."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as t
from tests.gguf_files import converted
from tests.small import FEW, small_model
from transformers import PretrainedConfig

from whet import api
from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import parse
from whet.runtime.engine import load
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

TINY = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32}
LONG |= {"short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0] * 8}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 16}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROPES = {"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}
ROPES |= {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
OTHER = {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 96}
MHA = {k: v for k, v in TINY.items() if k not in ("head_dim", "num_key_value_heads")}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": t.LlamaConfig(**TINY, attention_bias=True, mlp_bias=True),
    "llama3": t.LlamaConfig(**TINY, rope_parameters=LLAMA3),
    "linear": t.LlamaConfig(
        **TINY, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    ),
    "yarn": t.Qwen2Config(**TINY, rope_parameters=YARN),
    "tied": t.LlamaConfig(**TINY, tie_word_embeddings=True),
    "mistral": t.MistralConfig(**TINY, sliding_window=None),
    "mixtral": t.MixtralConfig(**TINY, **EXPERTS, sliding_window=None),
    "qwen2": t.Qwen2Config(**TINY),
    "qwen3": t.Qwen3Config(**TINY),
    "qwen3_moe": t.Qwen3MoeConfig(
        **TINY, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True
    ),
    "gemma": t.GemmaConfig(**TINY),
    "gemma2": t.Gemma2Config(**TINY, sliding_window=8, query_pre_attn_scalar=16),
    "gemma3": t.Gemma3TextConfig(
        **TINY | {"num_hidden_layers": 7}, sliding_window=8, query_pre_attn_scalar=16,
        rope_parameters=ROPES,
    ),
    "phi3": t.Phi3Config(**TINY, sliding_window=None),
    "phi3 window": t.Phi3Config(**TINY, sliding_window=8),
    "longrope": t.Phi3Config(
        **TINY, sliding_window=None, rope_parameters=LONG, original_max_position_embeddings=32
    ),
    "gpt2": t.GPT2Config(**OTHER, bos_token_id=1, eos_token_id=2),
    "gpt_neox": t.GPTNeoXConfig(
        **MHA, use_parallel_residual=False
    ),
    "pythia": t.GPTNeoXConfig(
        **MHA, rotary_pct=0.5
    ),
    "olmo2": t.Olmo2Config(**TINY),
    "olmo3": t.Olmo3Config(**TINY | {"num_hidden_layers": 5}, sliding_window=8),
    "starcoder2": t.Starcoder2Config(**TINY, sliding_window=None),
}  # fmt: skip


def saved(name: str, folder: Path) -> Path:
    """A random model."""
    torch.manual_seed(3)
    model = t.AutoModelForCausalLM.from_config(FAMILIES[name]).float()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_families_compute_what_their_originals_compute(name: str, tmp_path: Path) -> None:
    file = converted(saved(name, tmp_path), tmp_path / "model.gguf")
    ids = np.arange(40) % 96
    model = t.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    found = load(file, "reference").logits(ids)
    assert np.allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "text"), [("Q8_0", "int8-g32-f16"), ("Q4_0", "int4-g32-f16")])
def test_blocks_stay_blocks(kind: str, text: str, tmp_path: Path) -> None:
    file = converted(demo(), tmp_path / "demo.gguf", kind)
    folder = Folder(file)
    (scheme,) = folder.config["quantization_config"]["schemes"]
    assert scheme["format"] == text
    assert len(scheme["modules"]) == 8 * 7 + 1
    assert folder.nbytes == file.stat().st_size
    bits = parse(text).bits((4096, 256)) // 8
    table = [n for n in folder.tensors if n.startswith("model.embed_tokens.weight_")]
    assert sum(folder.tensors[name].info.nbytes for name in table) == bits


def test_a_dense_view_holds_the_same_numbers(tmp_path: Path) -> None:
    file = converted(demo(), tmp_path / "demo.gguf", "Q4_1")
    seen, dense = Checkpoint(Folder(file)), Checkpoint(Folder(file, dense=True))
    assert "quantization_config" not in dense.config
    from whet.model.family import find

    family = find(seen.config)
    arch = family.architecture(seen.config, dense.names())
    assert set(family.tensors(arch)) == set(dense.names())
    for site in family.block_sites(arch, 3):
        assert seen.weight(site).dense().equal(dense.weight(site).dense())


TEXT = "Once upon a time"


def test_unknown_kinds_of_models_are_named(tmp_path: Path) -> None:
    saved("qwen2", tmp_path)
    for key, value in (("qwen2.expert_count", 4), ("qwen2.rope.scaling.type", "odd")):
        file = converted(tmp_path, tmp_path / "x.gguf", extra={key: value})
        with pytest.raises((UnsupportedError, FolderError), match=r"x\.gguf"):
            Folder(file)


def test_a_file_can_be_compressed_run_and_inspected(tmp_path: Path) -> None:
    file = converted(small_model(tmp_path / "small", 1), tmp_path / "small.gguf", "Q8_0")
    found = api.inspect(file)
    assert (found.family, found.dialect) == ("llama", "gguf")
    assert found.schemes == {"Q8_0 (as int8-g32-f16)": 8}
    done = api.compress(file, "int4-fast", set=FEW, out=tmp_path / "out")
    assert api.verify(done.path) == []
    made = load(done.path)
    assert made.encode(TEXT) == Tokenizer(demo()).encode(TEXT, special=True)
    expected = load(file, "reference").logits(list(range(30)))
    assert np.corrcoef(expected.ravel(), made.logits(list(range(30))).ravel())[0, 1] > 0.97
