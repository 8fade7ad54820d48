"""GGUF files as folders: the model, its tokenizer and its formats are those of the original."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.gguf_files import converted
from tests.small import FEW, small_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from whet import api
from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import parse
from whet.runtime.engine import load
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.gguf.tokenizer import tokenizer_files
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

TINY = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CAPS = {"gemma2.attn_logit_softcapping": 50.0, "gemma2.final_logit_softcapping": 30.0}
FAMILIES: dict[str, tuple[PretrainedConfig, dict[str, Any]]] = {
    "llama": (LlamaConfig(**TINY, attention_bias=True), {}),
    "tied": (LlamaConfig(**TINY, tie_word_embeddings=True), {}),
    "mistral": (MistralConfig(**TINY, sliding_window=None), {}),
    "qwen2": (Qwen2Config(**TINY), {}),
    "qwen3": (Qwen3Config(**TINY), {}),
    "gemma2": (
        Gemma2Config(**TINY, sliding_window=8, query_pre_attn_scalar=16),
        CAPS | {"gemma2.attention.sliding_window": 8},
    ),
    "phi3": (Phi3Config(**TINY, sliding_window=None), {}),
}


def saved(name: str, folder: Path) -> Path:
    """A random model; Mistral is called Llama, as llama.cpp does."""
    config, _ = FAMILIES[name]
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config).float()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if name == "mistral":
        values |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        path.write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_families_compute_what_their_originals_compute(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path)
    file = converted(folder, tmp_path / "model.gguf", extra=FAMILIES[name][1])
    ids = np.arange(40) % 96
    expected, found = (load(source, "reference").logits(ids) for source in (folder, file))
    assert np.allclose(found, expected, atol=1e-4 if name == "gemma2" else 0)


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


TEXTS = [
    "Once upon a time",
    " two  spaces",
    "naïve café — 1234567!",
    "\n\n\tx",
    "日本語 emoji 🙂",
    "",
]


@pytest.mark.parametrize("source", [demo()])
def test_tokens_are_those_of_the_original(source: Path, tmp_path: Path) -> None:
    file = converted(source, tmp_path / "x.gguf")
    ours, theirs = Tokenizer(file), Tokenizer(source)
    assert (ours.bos_id, ours.eos_ids, ours.adds_bos) == (
        theirs.bos_id, theirs.eos_ids, theirs.adds_bos,
    )  # fmt: skip
    for text in TEXTS:
        ids = theirs.encode(text, special=True)
        assert ours.encode(text, special=True) == ids
        assert ours.decode(ids) == theirs.decode(ids)


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += ["▁t", "he", "▁the", "▁", "t", "h", "e", "a", "▁a", "at", "c", "▁c", "▁cat"]


def test_pieces_with_scores_are_joined_the_likeliest_first() -> None:
    values = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": PIECES,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(PIECES))],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 13],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip
    import tokenizers

    made = tokenizer_files(Path("x.gguf"), values)["tokenizer.json"]
    found = tokenizers.Tokenizer.from_str(json.dumps(made)).encode("the cat é")
    assert found.tokens == ["<s>", "▁the", "▁cat", "▁", "<0xC3>", "<0xA9>"]


def test_unknown_kinds_of_models_and_tokenizers_are_named(tmp_path: Path) -> None:
    saved("qwen2", tmp_path)
    for key, value in (("qwen2.expert_count", 4), ("qwen2.rope.scaling.type", "odd")):
        file = converted(tmp_path, tmp_path / "x.gguf", extra={key: value})
        with pytest.raises((UnsupportedError, FolderError), match=r"x\.gguf"):
            Folder(file)
    for values in ({"model": "t5"}, {"model": "gpt2", "pre": "odd"}):
        named = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
        named |= {"tokenizer.ggml.tokens": ["a"]}
        with pytest.raises(UnsupportedError, match=r"t5|odd"):
            tokenizer_files(Path("x.gguf"), named)


def test_a_file_can_be_compressed_run_and_inspected(tmp_path: Path) -> None:
    file = converted(small_model(tmp_path / "small", 1), tmp_path / "small.gguf", "Q8_0")
    found = api.inspect(file)
    assert (found.family, found.dialect) == ("llama", "gguf")
    assert found.schemes == {"Q8_0 (as int8-g32-f16)": 8}
    done = api.compress(file, "int4-fast", set=FEW, out=tmp_path / "out")
    assert api.verify(done.path) == []
    made = load(done.path)
    assert made.encode(TEXTS[0]) == Tokenizer(demo()).encode(TEXTS[0], special=True)
    expected = load(file, "reference").logits(list(range(30)))
    assert np.corrcoef(expected.ravel(), made.logits(list(range(30))).ravel())[0, 1] > 0.97
