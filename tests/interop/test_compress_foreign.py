"""Models without a family here, compressed through the code of transformers."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.interop.pipeline import (
    FEW,
    TOLERANCE,
    VOCAB,
    apart,
    compress,
    distance,
    ids_of,
    patch_reload,
    randomized,
    saved,
    tensor_bytes,
)  # fmt: skip
from tests.small import stop_at
from tests.unit.model.tiny import SIZES
from transformers import PreTrainedModel

import whet
from whet.api import compression
from whet.base.errors import StoppedError
from whet.model.foreign import Foreign

pytest.importorskip("compressed_tensors")
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForMaskedLM", SIZES),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5 | {"decoder_start_token_id": 0}),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", SIZES),
}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_reload(monkeypatch)


def made(kind: str) -> PreTrainedModel:
    config, model, fields = KINDS[kind]
    sizes = fields | {"vocab_size": VOCAB}
    return randomized(getattr(transformers, model)(getattr(transformers, config)(**sizes)))


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_what_was_computed(kind: str, tmp_path: Path) -> None:
    model = made(kind)
    source = saved(model, tmp_path / "model")
    done = compress(source)
    again = type(model).from_pretrained(done.path, dtype=torch.float32).eval()
    inputs = Foreign(source).inputs(ids_of())
    with torch.inference_mode():
        found, original = again(**inputs).logits, model(**inputs).logits
    assert apart(found, Foreign(done.path).outputs(ids_of())) <= TOLERANCE
    assert 0 < distance(found, original) < 0.5
    bound = compression.bound(str(source), "int4", FEW)
    assert bound.weights_bytes == tensor_bytes(done.path)


def digests(folder: Path) -> dict[str, str]:
    names = [p for p in folder.iterdir() if p.suffix == ".safetensors" or p.name == "config.json"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    source = saved(made("stablelm"), tmp_path / "model")
    straight = compress(source, out=tmp_path / "straight")
    with pytest.raises(StoppedError):
        compress(source, out=tmp_path / "out", **stop_at(1))
    resumed = compress(source, out=tmp_path / "out", resume="required")
    assert digests(resumed.path) == digests(straight.path)
    kept = [(r.step, r.site) for r in resumed.records if r.step == "gptq"]
    assert kept == [(r.step, r.site) for r in straight.records if r.step == "gptq"]


def test_blocks_are_needed_for_some_methods(tmp_path: Path) -> None:
    source = saved(made("bert"), tmp_path / "model")
    with pytest.raises(whet.base.errors.RecipeError, match="blocks of known families"):
        compress(source, "w8a8")
