"""The engine reads every dialect: what it computes is what the written weights mean."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from whet.formats.spec import parse
from whet.formats.weight import written
from whet.measure.folder import sizes
from whet.runtime import reference
from whet.runtime.engine import Engine, load
from whet.store.checkpoint import Checkpoint
from whet.store.dialects import choose
from whet.store.folder import Folder
from whet.store.scheme import Scheme

TINY = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("plain")
    LlamaForCausalLM(LlamaConfig(**TINY, tie_word_embeddings=False)).save_pretrained(folder)
    return folder


def compressed(plain: Path, to: Path, text: str) -> tuple[Engine, str]:
    """Write the blocks' linears in a format; return what they mean, in memory, and the dialect."""
    executor = reference.load(Folder(plain))
    expected = Engine(plain, executor)
    source = Checkpoint(Folder(plain))
    tensors = {name: source.raw_tensor(name) for name in source.names()}
    linears = {s: block.linears[s.role] for block in executor.model.blocks for s in block.sites}
    schemes = {site: Scheme(parse(text)) for site in linears}
    choice = choose(schemes)
    for site, linear in linears.items():
        weight = written(linear.weight.dense(), schemes[site].format)
        linear.replace(weight)
        del tensors[f"{site.module}.weight"]
        tensors |= choice.dialect.tensors(site, weight, schemes[site])
    modules = {site.module: scheme for site, scheme in schemes.items()}
    skipped = ("model.embed_tokens", "lm_head")
    quantization = choice.config(modules, skipped)
    config = json.loads((plain / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    save_file({n: t.contiguous() for n, t in tensors.items()}, to / "model.safetensors")
    return expected, choice.dialect.name


@pytest.mark.parametrize(
    ("text", "dialect", "bits"),
    [("int4-g32", "compressed-tensors", 4.5), ("nf4-g32", "whet", 4.5)],
)
def test_each_dialect_is_read(
    plain: Path, tmp_path: Path, text: str, dialect: str, bits: float
) -> None:
    expected, name = compressed(plain, tmp_path, text)
    found = load(tmp_path, "reference")
    tokens = np.arange(20).reshape(2, 10)
    assert name == dialect
    assert np.allclose(found.logits(tokens), expected.logits(tokens), atol=1e-6)
    assert (load(tmp_path, "reference", unpacked=True).logits(tokens) == found.logits(tokens)).all()
    assert not np.allclose(found.logits(tokens), load(plain, "reference").logits(tokens), atol=1e-3)
    assert sizes(tmp_path).facts()["bits_per_weight"].value == pytest.approx(bits, rel=0.02)
