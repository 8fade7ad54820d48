"""The recipe `plain`: any source as an ordinary folder, number by number."""

from pathlib import Path

import pytest
import torch
from tests.quantized import CASES, plain, quantized
from transformers import AutoModelForCausalLM

from whet import api
from whet.base.errors import NumericalError
from whet.methods.quantize.plain import Plain
from whet.model.source import InMemory
from whet.passes.model_pass import Task
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder


def run(method: Plain, **tensors: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    source = InMemory({}, tensors)
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    task = Task(source, source, lambda *_: nothing, Path(), 0, lambda *_: None, lambda: False)
    outcome = method.run(task)
    found = dict(outcome.tensors)
    return found, {name: fact.value for name, fact in outcome.facts[""].items()}


@pytest.mark.parametrize(("dtype", "kept"), [("bf16", 1), ("f16", 2), ("f32", 3)])
def test_numbers_are_rounded_to_nearest_and_counted(dtype: str, kept: int) -> None:
    values = torch.tensor([1.0, 1 + 2.0**-10, 1 + 2.0**-20])
    found, facts = run(Plain(dtype=dtype), a=values, ids=torch.arange(3))  # pyright: ignore[reportArgumentType]
    assert set(found) == {"a"}
    assert torch.equal(found["a"], values.to(found["a"].dtype))
    assert facts == {"changed": 3 - kept, "numbers": 3}


def test_what_f16_cannot_hold_is_refused() -> None:
    with pytest.raises(NumericalError, match=r"a has 1 numbers that f16 cannot hold.*70000"):
        run(Plain(dtype="f16"), a=torch.tensor([1.0, 7e4]))


def test_the_configuration_says_the_type() -> None:
    assert Plain(dtype="f16").config({})["dtype"] == "float16"
    nested = {"torch_dtype": "float32", "text_config": {"dtype": "float32", "hidden_size": 4}}
    assert Plain().config(nested) == {
        "torch_dtype": "bfloat16",
        "text_config": {"dtype": "bfloat16", "hidden_size": 4},
    }


@pytest.mark.slow
def test_a_quantized_source_becomes_a_folder_for_transformers(tmp_path: Path) -> None:
    values = quantized(plain(tmp_path / "plain"), tmp_path / "model", CASES["nf4-nested"])
    settings = ["plain.dtype=f32"]
    api.compress(tmp_path / "model", "plain", out=tmp_path / "out", set=settings)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    state = model.state_dict()
    assert all(torch.allclose(state[name], value, atol=1e-7) for name, value in values.items())
    folder = Folder(tmp_path / "out")
    assert "quantization_config" not in folder.config
    assert Checkpoint(folder).tensor("model.embed_tokens.weight").dtype == torch.float32
