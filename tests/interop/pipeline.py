"""Models compressed by the whole pipeline, and what transformers computes from the result."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.unit.model.tiny import CASES, randomize
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import whet
from whet.api import compression
from whet.recipe.reload import Reloaded, compared, logits
from whet.store.resolve import demo

FEW = ("calibration.samples=4", "calibration.length=32")
VOCAB = 4096  # of the demo's tokenizer
TOLERANCE = 1e-3  # of the logits' spread


def here(folder: Path, probe: Path) -> Reloaded:
    """Check a written folder as the pipeline does, without the seconds that a new process takes."""
    held = load_file(probe)
    found = compared(held["logits"], logits(folder, held["ids"]))
    assert found.error <= TOLERANCE, found
    return found


def tiny(case: str, **fields: Any) -> PreTrainedModel:
    """A random model of a case of `tiny.CASES`, with the demo's vocabulary."""
    kind, sizes = CASES[case]
    config = getattr(transformers, kind)(**(sizes | {"vocab_size": VOCAB} | fields))
    return randomized(AutoModelForCausalLM.from_config(config))


def randomized(model: PreTrainedModel) -> PreTrainedModel:
    """The model with every parameter at random."""
    randomize(model.eval(), 1)
    return model


def saved(model: PreTrainedModel, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A model's folder with the demo's tokenizer; the model takes the rounded weights too."""
    model.to(dtype).save_pretrained(path)
    model.to(torch.float32)
    with_tokenizer(path)
    return path


def with_tokenizer(path: Path) -> None:
    """Add the demo's tokenizer to a folder."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo() / name, path / name)


def stack(model: PreTrainedModel, path: Path) -> Path:
    """Write a saved model's weights anew under the names of memory: experts in one tensor."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    save_file(state, path / "model.safetensors", {"format": "pt"})
    return path


def compress(source: Path, recipe: Any = "int4", **options: Any) -> whet.api.compression.Result:
    """Compress beside the source on a few tokens."""
    settings = (*FEW, *options.pop("set", ()))
    out = options.pop("out", source.with_name(f"{source.name}-compressed"))
    return whet.compress(source, recipe, set=settings, out=out, **options)


def ids_of(time: int = 9) -> Tensor:
    """A few token ids."""
    return torch.randint(VOCAB, (2, time), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def ours(folder: Path) -> Tensor:
    """The logits as whet computes them."""
    return torch.as_tensor(whet.load(folder, executor="reference").logits(ids_of()))


@torch.inference_mode()
def theirs(folder: Path, **options: Any) -> Tensor:
    """The logits as transformers computes them."""
    options = {"dtype": torch.float32} | options
    return AutoModelForCausalLM.from_pretrained(folder, **options)(ids_of()).logits


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference in units of the spread."""
    return float((one - other).abs().max() / other.std())


def distance(one: Tensor, other: Tensor) -> float:
    """The root mean square of the difference in units of the spread."""
    return float((one - other).square().mean().sqrt() / other.std())


def tensor_bytes(folder: Path) -> int:
    """The sum of the sizes of all tensors in a folder [byte]."""
    tensors = (t for path in folder.glob("*.safetensors") for t in load_file(path).values())
    return sum(t.numel() * t.element_size() for t in tensors)


def patch_reload(monkeypatch: Any) -> None:
    """Let the pipeline check its results in this process."""
    monkeypatch.setattr(compression, "reload", here)


def recipe(path: Path, steps: list[Mapping[str, Any]], **fields: Any) -> Path:
    """Write a recipe file."""
    import yaml

    path.write_text(yaml.safe_dump({"name": path.stem, "steps": steps} | fields))
    return path
