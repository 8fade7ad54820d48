"""Structural passes on tiny models in memory, and what becomes of these."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.unit.model.tiny import source, stacked
from whet.model import decoder
from whet.model.cut import successor
from whet.model.family import find
from whet.model.source import InMemory
from whet.passes.model_pass import ModelPass, Outcome, Task

FAMILIES = (
    "llama-biases", "llama-tied", "mistral", "qwen2-windows", "qwen3", "gemma2", "gemma3", "phi3",
    "olmo2", "gpt2", "gpt_neox", "opt", "opt-after", "mixtral", "qwen3_moe", "qwen3_moe-some",
    "qwen3_moe stacked", "mixtral stacked",
)  # fmt: skip


def model_of(case: str) -> InMemory:
    """The tiny model of a case, its experts in one tensor if the case says so."""
    name, _, how = case.partition(" ")
    return stacked(name) if how else source(name)


def ids(samples: int, time: int) -> Tensor:
    """Random tokens of the tiny vocabulary."""
    return torch.randint(61, (samples, time), generator=torch.Generator().manual_seed(samples))


def task_of(model: InMemory, work: Path) -> Task:
    """What a pass is given."""
    return Task(model, model, ids, work, 0, lambda share, what: None, lambda: False)


def outcome(use: ModelPass, model: InMemory, work: Path) -> tuple[Outcome, dict[str, Tensor]]:
    """What a pass makes of a model."""
    done = use.run(task_of(model, work))
    return done, dict(done.tensors)


def changed(use: ModelPass, model: InMemory, work: Path) -> InMemory:
    """A model after a pass, with exactly the tensors that its configuration calls for."""
    assert use.refuses(model.config) is None
    config = use.config(model.config)
    _, made = outcome(use, model, work)
    wanted = find(config).tensors(successor(model.config, model.names(), config))
    assert set(made) <= set(wanted)
    held = {name: (made[name] if name in made else model.tensor(name)) for name in wanted}
    assert {name: tuple(value.shape) for name, value in held.items()} == dict(wanted)
    return InMemory(config, {name: value.float().contiguous() for name, value in held.items()})


@torch.inference_mode()
def logits(model: InMemory, tokens: Tensor | None = None) -> Tensor:
    """What our decoder computes."""
    return decoder.load(model)(ids(3, 12) if tokens is None else tokens)


@torch.inference_mode()
def theirs(model: InMemory, folder: Path) -> Tensor:
    """What transformers computes from a folder of these tensors."""
    (folder / "config.json").write_text(json.dumps(dict(model.config)))
    save_file(dict(model.tensors), folder / "model.safetensors", {"format": "pt"})
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids(3, 12)).logits


def edited(model: InMemory, tensors: Mapping[str, Tensor], **config: Any) -> InMemory:
    """A model with some other tensors."""
    return InMemory(dict(model.config) | config, dict(model.tensors) | dict(tensors))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Return whether logits are the same but for rounding."""
    return float((one - other).abs().max()) <= tolerance * float(other.std())
