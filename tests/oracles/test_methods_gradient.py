"""Gradients that go block by block against those of the whole model, and the masks that they give."""

from pathlib import Path

import pytest
import torch
from tests.interop.pipeline import here, recipe
from tests.small import small_model
from tests.structures import changed, ids, model_of, outcome
from torch import Tensor
from torch.nn import functional

import whet
from whet.api import compression
from whet.base.errors import RecipeError
from whet.formats.pattern import Within
from whet.methods.prune.gradient import Gradient
from whet.model.decoder import load
from whet.model.source import InMemory
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.train.backward import gradients
from whet.train.trainable import Scope, Trained, trainable

FEW = {"samples": 3, "length": 12}
CASES = ("llama-tied", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox", "opt", "mixtral")


def textbook(model: InMemory, windows: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean size and mean square of the gradients of each window's loss, the model as one."""
    made = trainable(load(model), Scope(linears=True), 0)
    linears = {
        site.module: block.linears[site.role] for block in made.blocks for site in block.sites
    }
    found: dict[str, list[Tensor]] = {module: [] for module in linears}
    for window in windows:
        made.zero_grad()
        functional.cross_entropy(made(window[None, :-1])[0], window[1:]).backward()
        for module, linear in linears.items():
            assert isinstance(linear, Trained)
            own = linear.master.grad
            found[module].append(torch.zeros(linear.shape) if own is None else own.clone())
    every = {module: torch.stack(some) for module, some in found.items()}
    return {module: (some.abs().mean(0), some.square().mean(0)) for module, some in every.items()}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_whole_model(case: str, tmp_path: Path) -> None:
    model, windows = model_of(case), ids(3, 12)
    expected = textbook(model, windows)
    with torch.inference_mode():
        for passed in gradients(model, windows, tmp_path, lambda *_: None):
            for site in passed.block.sites:
                size, square = expected[site.module]
                found = passed.moments[site.role]
                torch.testing.assert_close(found.size, size, rtol=1e-3, atol=1e-7)
                torch.testing.assert_close(found.square, square, rtol=1e-3, atol=1e-9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize("pattern", ["2:4", "sparse50"])
def test_what_stays_is_what_matters_most(criterion: str, pattern: str, tmp_path: Path) -> None:
    model = model_of("llama-tied")
    use = Gradient(pattern=pattern, criterion=criterion, **FEW)
    done, made = outcome(use, model, tmp_path)
    moments = textbook(model, ids(3, 12))
    sites = [site for block in load(model).blocks for site in block.sites]
    for site in sites:
        weight = model.tensor(site.tensor).float()
        size, square = moments[site.module]
        scores = weight.abs() * size if criterion == "taylor" else weight**2 * square
        width = 4 if pattern == "2:4" else scores.shape[1]
        groups = scores.unflatten(1, (-1, width))
        least = groups.topk(width // 2, 2).values.amin(2, keepdim=True)
        mask = (groups >= least).flatten(1)
        assert torch.equal(made[site.tensor].float(), weight * mask)
        assert done.facts[site.module]["sparsity"].value == pytest.approx(0.5)


def test_the_model_keeps_its_shape(tmp_path: Path) -> None:
    model = model_of("mixtral")
    found = changed(Gradient(pattern="sparse50", **FEW), model, tmp_path)
    assert found.config == model.config


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="pattern is '2-4'"):
        Gradient(pattern="2-4")
    with pytest.raises(ValueError, match="samples is 0"):
        Gradient(samples=0)
    with pytest.raises(RecipeError):
        Gradient(pattern="4:2")
    why = Gradient(pattern=str(Within(2, 7))).refuses(model_of("llama-tied").config)
    assert why
    assert "do not divide by the 7" in why


def test_magnitude_then_stores_the_same_mask_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "reload", here)
    model = small_model(tmp_path / "model", layers=1)
    first = {"use": "gradient", "pattern": "2:4", "samples": 2, "length": 16}
    second = {"use": "magnitude", "format": "2:4(int4-g64)", "refit": True}
    few = ("calibration.samples=8", "calibration.length=64")
    folders = [
        whet.compress(
            model, recipe(tmp_path / f"{n}.yaml", steps), set=few, out=tmp_path / f"out-{n}"
        ).path
        for n, steps in enumerate(([first], [first, second]))
    ]
    plain, sparse = (load(Checkpoint(Folder(folder))) for folder in folders)
    for role, linear in sparse.blocks[0].linears.items():
        assert str(linear.weight.format) == "2:4(int4-g64)"
        left = plain.blocks[0].linears[role].weight.dense()
        assert not linear.weight.dense()[left == 0].any()
