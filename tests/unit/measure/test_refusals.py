import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from whet.base.errors import FolderError, NumericalError, UnsupportedError
from whet.measure.quality import compare
from whet.store.resolve import demo

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}


def tokenizer_into(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((demo() / name).read_bytes())


def test_an_encoder_cannot_be_measured_and_the_message_says_why(tmp_path: Path) -> None:
    BertModel(BertConfig(**TINY, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="needs a decoder of a known family") as caught:
        compare(tmp_path)
    assert "bert" in caught.value.message
    assert len(str(caught.value).splitlines()) <= 3


def test_models_with_different_tokens_cannot_be_compared(tmp_path: Path) -> None:
    settings = LlamaConfig(**TINY, num_attention_heads=2, vocab_size=5000)
    LlamaForCausalLM(settings).save_pretrained(tmp_path)
    tokenizer_into(tmp_path)
    with pytest.raises(FolderError, match="different tokens"):
        compare(tmp_path, "demo", count=1, length=32)


def test_a_model_that_computes_nonsense_is_named(tmp_path: Path) -> None:
    for path in demo().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.3.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(NumericalError, match="not finite"):
        compare(tmp_path, "demo", count=1, length=32)


def test_windows_are_no_longer_than_the_smaller_context(tmp_path: Path) -> None:
    for path in demo().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["max_position_embeddings"] = 40
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert compare("demo", tmp_path, count=2)[0].facts["tokens"].value == 80
