"""Blocks of different widths: cut, read by transformers after `import whet`, run, and cut again."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tests.interop.pipeline import apart, compress, ids_of, ours, patch_reload, recipe, saved, tiny
from tests.interop.pipeline import theirs as read_there
from tests.structures import FAMILIES, changed, close, logits, model_of, theirs

import whet
from whet.base.errors import FolderError, RecipeError
from whet.methods.structure.depth import Depth
from whet.methods.structure.ffn import Ffn
from whet.model.family import find
from whet.store.folder import Folder

FEW = {"samples": 4, "length": 16}
DENSE = [
    c for c in FAMILIES if "tral stacked" not in c and not c.startswith(("mixtral", "qwen3_moe"))
]


def widths(case: str) -> tuple[int, ...]:
    """The first block as it is, half of the others."""
    arch = find(model_of(case).config).architecture(model_of(case).config)
    return (arch.ffn, *[arch.ffn // 2] * (arch.layers - 1))


@pytest.mark.parametrize("case", DENSE)
def test_transformers_computes_what_we_do(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    found = changed(Ffn(channels=widths(case), **FEW), model, tmp_path)
    assert found.config["whet_ffn"] == list(widths(case))
    assert close(theirs(found, tmp_path), logits(found))
    assert sum(t.numel() for t in found.tensors.values()) < sum(
        t.numel() for t in model.tensors.values()
    )


def test_channels_that_are_all_there_cost_nothing(tmp_path: Path) -> None:
    model = model_of("llama-tied")
    use = Ffn(channels=(48, 40), refit=False, criterion="magnitude", **FEW)
    found = changed(use, model, tmp_path)
    first = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(found.tensors[first], model.tensors[first])


def test_equal_widths_are_an_ordinary_model(tmp_path: Path) -> None:
    found = changed(Ffn(channels=(24, 24), **FEW), model_of("llama-tied"), tmp_path)
    assert "whet_ffn" not in found.config
    assert found.config["intermediate_size"] == 24


def test_it_can_be_cut_again(tmp_path: Path) -> None:
    once = changed(Ffn(channels=(48, 24), **FEW), model_of("llama-tied"), tmp_path)
    again = changed(Ffn(share=0.5, multiple=4, **FEW), once, tmp_path)
    assert again.config["whet_ffn"] == [24, 12]
    assert close(theirs(again, tmp_path), logits(again))
    assert "name them" in (Depth(keep=1).refuses(once.config) or "")
    shorter = changed(Depth(layers=(0,)), once, tmp_path)
    assert shorter.config["whet_ffn"] == [24]
    assert close(logits(shorter), theirs(shorter, tmp_path))


def test_what_does_not_fit_is_refused() -> None:
    config = model_of("llama-tied").config
    assert Ffn(channels=(48,)).refuses(config) == "it has 2 blocks, and channels has 1 numbers"
    assert "fewer than are to stay" in (Ffn(channels=(48, 49)).refuses(config) or "")
    assert Ffn(channels=(48, 48)).refuses(config) == "no channel would go"
    assert "experts" in (Ffn(channels=(24, 24)).refuses(model_of("mixtral").config) or "")
    with pytest.raises(ValueError, match="1 or more of each block"):
        Ffn(channels=(0, 8))


@pytest.mark.parametrize("told", [[48], [48, 0], [48, True], "48", {"0": 48}, [48, 2**40]])
def test_widths_that_mean_nothing_are_refused(told: object) -> None:
    config = dict(model_of("llama-tied").config) | {"whet_ffn": told}
    with pytest.raises(FolderError, match="expected 2 widths, one for each block"):
        find(config).architecture(config)


@pytest.mark.parametrize("format_", [None, "int4-g8", "nf4-g16"])
def test_a_recipe_leaves_a_folder_that_loads_and_runs(
    format_: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_reload(monkeypatch)
    source = saved(tiny("llama-tied"), tmp_path / "model")
    steps = [{"use": "ffn", "channels": [48, 16], "samples": 4, "length": 32}]
    steps += [{"use": "rtn", "format": format_}] if format_ else []
    done = compress(source, recipe(tmp_path / "r.yaml", steps))
    assert Folder(done.path).config["whet_ffn"] == [48, 16]
    assert apart(ours(done.path), read_there(done.path)) <= 1e-3
    native = torch.as_tensor(whet.load(done.path).logits(ids_of()))
    assert apart(native, ours(done.path)) <= 0.1


def test_a_plan_refuses_widths_of_another_model(tmp_path: Path) -> None:
    source = saved(tiny("llama-tied"), tmp_path / "model")
    steps = recipe(tmp_path / "r.yaml", [{"use": "ffn", "channels": [48]}])
    with pytest.raises(RecipeError, match="2 blocks, and channels has 1"):
        compress(source, steps)


@pytest.mark.parametrize("first", ["whet, transformers", "transformers.modeling_utils, whet"])
def test_the_order_of_imports_does_not_matter(first: str, tmp_path: Path) -> None:
    model = changed(Ffn(channels=(48, 16), **FEW), model_of("llama-tied"), tmp_path)
    theirs(model, tmp_path)
    code = f"""
        import {first}
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})
        print([block.mlp.up_proj.out_features for block in model.model.layers])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout) == [48, 16], done.stderr[-500:]
