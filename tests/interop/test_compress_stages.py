"""Models of several families through recipes of several stages, as a user runs them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.pipeline import (
    TOLERANCE,
    apart,
    compress,
    ids_of,
    ours,
    patch_reload,
    recipe,
    saved,
    stack,
    tensor_bytes,
    theirs,
    tiny,
)  # fmt: skip

import whet
from whet.api import compression
from whet.base.errors import RecipeError
from whet.recipe import anatomy
from whet.store.folder import Folder

FEW = {"samples": 4, "length": 32}
FFN = {"use": "ffn", "share": 0.3, "multiple": 8, **FEW}
HEADS = {"use": "heads", "keep": 1, **FEW}
HIDDEN = {"use": "hidden", "share": 0.25, "multiple": 8, **FEW}
PLAIN = {"use": "rtn", "format": "f32"}
INT4 = {"use": "rtn", "format": "int4-g8"}
CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "llama": ("llama-tied", [FFN, HEADS, {"use": "depth", "keep": 1, **FEW}]),
    "gemma": ("gemma2", [FFN, HIDDEN]),
    "gpt2": ("gpt2", [PLAIN, FFN]),
    "phi3": ("phi3", [HEADS, {"use": "window", "tokens": 4}]),
    "experts": ("qwen3_moe-some", [FFN, {"use": "experts", "keep": 3, **FEW}]),
    "mixtral": ("mixtral", [{"use": "experts", "keep": 3, **FEW}, HIDDEN]),
    "relu": ("qwen3", [{"use": "activation"}, {"use": "gqa", "heads": 1}]),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_reload(monkeypatch)


@pytest.mark.parametrize("name", CASES)
def test_the_folder_loads_elsewhere_and_runs_natively(name: str, tmp_path: Path) -> None:
    case, steps = CASES[name]
    source = saved(tiny(case), tmp_path / "model")
    done = compress(source, recipe(tmp_path / "r.yaml", steps))
    assert apart(ours(done.path), theirs(done.path)) <= TOLERANCE
    engine = whet.load(done.path)
    native = torch.as_tensor(engine.logits(ids_of()))
    assert apart(native, ours(done.path)) <= 0.1  # it rounds inputs to bfloat16
    assert tensor_bytes(done.path) <= tensor_bytes(source)


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe-some"])
def test_experts_in_one_tensor_come_through_all_stages(case: str, tmp_path: Path) -> None:
    model = tiny(case)
    source = stack(model, saved(model, tmp_path / "model"))
    steps = recipe(tmp_path / "r.yaml", [FFN, {"use": "experts", "keep": 3, **FEW}, INT4])
    done = compress(source, steps)
    assert compression.bound(str(source), str(steps), compression_few()).weights_bytes == (
        tensor_bytes(done.path)
    )
    assert Folder(done.path).config["quantization_config"]


@pytest.mark.parametrize("order", [[PLAIN, FFN], [PLAIN]])
def test_a_streamed_stage_takes_experts_apart(tmp_path: Path, order: list[dict[str, Any]]) -> None:
    model = tiny("mixtral")
    source = stack(model, saved(model, tmp_path / "model"))
    steps = recipe(tmp_path / "r.yaml", order)
    done = compress(source, steps)
    bound = compression.bound(str(source), str(steps), compression_few())
    assert bound.weights_bytes == tensor_bytes(done.path)
    assert anatomy.anatomy(Folder(done.path)).family == "mixtral"


def compression_few() -> tuple[str, ...]:
    return ("calibration.samples=4", "calibration.length=32")


def test_a_model_that_transformers_runs_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.PhiConfig(
        vocab_size=4096, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    source = saved(transformers.AutoModelForCausalLM.from_config(config), tmp_path / "model")
    with pytest.raises(RecipeError, match=r"step 1 .ffn. cannot change this model"):
        compress(source, recipe(tmp_path / "r.yaml", [FFN]))
