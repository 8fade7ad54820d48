"""Recipes of every shape on a small llama, from the command's settings to what transformers loads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.pipeline import (
    TOLERANCE,
    apart,
    compress,
    distance,
    ids_of,
    ours,
    patch_reload,
    recipe,
    saved,
    tensor_bytes,
    theirs,
    tiny,
)  # fmt: skip

from whet.base.errors import RecipeError
from whet.formats.spec import EXAMPLES, Corrected, Float, LowRank, parse
from whet.model.family import find
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder

pytest.importorskip("compressed_tensors")
CHOSEN = ("int4-g64-affine", "log4-g64-tuned", "lowrank-8", "int4-g64 + lowrank-8")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_reload(monkeypatch)


def small(path: Path, case: str = "llama", dtype: torch.dtype = torch.bfloat16) -> Path:
    return saved(tiny(case, num_hidden_layers=1), path / "model", dtype)


def agrees(folder: Path) -> bool:
    return apart(theirs(folder), ours(folder)) <= TOLERANCE


def agrees_in_bfloat16(folder: Path) -> bool:
    """Transformers decodes NVFP4 to bfloat16 whatever is asked for."""
    found = theirs(folder, dtype=torch.bfloat16).float()
    return distance(found, ours(folder)) <= 0.03


def test_a_tied_embedding(tmp_path: Path) -> None:
    steps = [{"use": "rtn", "format": "int6-channel", "where": "embed"}]
    done = compress(small(tmp_path, "llama-tied"), recipe(tmp_path / "r.yaml", steps))
    names = set(Folder(done.path).tensors)
    assert "model.embed_tokens.weight" not in names
    assert not any(name.startswith("lm_head") for name in names)
    assert agrees(done.path)


@pytest.mark.parametrize(("case", "where"), [("llama-tied", "embed"), ("llama", "head")])
def test_inputs_of_the_head(case: str, where: str, tmp_path: Path) -> None:
    steps = [
        {"use": "activations", "activation": "int16-g32", "where": ["blocks", where]},
        {"use": "rtn", "format": "int8-channel", "where": ["blocks", where]},
    ]
    done = compress(small(tmp_path, case), recipe(tmp_path / "r.yaml", steps))
    opened = Checkpoint(Folder(done.path))
    family = find(opened.config)
    arch = family.architecture(opened.config, opened.names())
    site = family.embed_site(arch) if where == "embed" else family.head_site(arch)
    assert str((opened.activation(site) or ("none",))[0]) == "int16-g32"
    assert agrees(done.path)


def test_inputs_of_the_head_are_not_fixed(tmp_path: Path) -> None:
    steps = [{"use": "activations", "activation": "int8-tensor-static", "where": "head"}]
    with pytest.raises(RecipeError, match="works on blocks"):
        compress(small(tmp_path), recipe(tmp_path / "r.yaml", steps))


def test_a_tied_embedding_with_blocks_on_what_it_left(tmp_path: Path) -> None:
    steps = [
        {"use": "rtn", "format": "int8-channel", "where": "embed"},
        {"use": "gptq", "format": "int4-g32"},
    ]
    done = compress(small(tmp_path, "llama-tied"), recipe(tmp_path / "r.yaml", steps))
    assert agrees(done.path)
    with pytest.raises(RecipeError, match="shares its storage"):
        compress(
            tmp_path / "model",
            recipe(tmp_path / "h.yaml", [{"use": "gptq", "where": "head"}]),
            out=tmp_path / "other",
        )


@pytest.mark.parametrize("where", ["head", "embed"])
def test_one_end_of_an_untied_model(where: str, tmp_path: Path) -> None:
    steps = [{"use": "gptq" if where == "head" else "hqq", "format": "int4-g32", "where": where}]
    done = compress(small(tmp_path), recipe(tmp_path / "r.yaml", steps))
    assert any(f"{'lm_head' if where == 'head' else 'embed'}" in r.site for r in done.records)
    assert agrees(done.path)


MORE = [pytest.param(c, marks=pytest.mark.slow) for c in ("gemma2", "opt", "gpt2", "qwen3_moe")]


@pytest.mark.parametrize("case", ["llama", *MORE])
@pytest.mark.parametrize("use", ["awq", "smoothquant"])
def test_equalising_alone_changes_nothing_but_roundings(
    use: str, case: str, tmp_path: Path
) -> None:
    for dtype, bar in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
        model = tiny(case)
        path = tmp_path / str(dtype)
        path.mkdir()
        source = saved(model, path / "model", dtype)
        done = compress(source, recipe(path / "r.yaml", [{"use": use}]))
        with torch.inference_mode():
            assert distance(ours(done.path), model(ids_of()).logits) < bar
        assert "quantization_config" not in Folder(done.path).config
        assert agrees(done.path)


@pytest.mark.parametrize(
    "name", ["w8a8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("w4a8", "fp8"))]
)
def test_quantized_inputs(name: str, tmp_path: Path) -> None:
    assert agrees(compress(small(tmp_path), name).path)


@pytest.mark.parametrize("activation", ["int8-tensor-static", "int8-tensor-affine-static"])
def test_fixed_scales_of_inputs(activation: str, tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"use": "activations", "activation": activation},
        {"use": "gptq", "format": "int8-channel"},
    ]
    done = compress(small(tmp_path), recipe(tmp_path / "r.yaml", steps))
    scales = [n for n in Folder(done.path).tensors if n.endswith("input_scale")]
    assert len(scales) == 7
    assert agrees(done.path)


def test_two_steps_on_different_sites_and_some_skipped(tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"use": "gptq", "format": "int3-g32-affine", "where": ["mlp.*"]},
        {"use": "rtn", "format": "int8-channel", "where": ["attn.*"]},
    ]
    made = recipe(tmp_path / "r.yaml", steps, skip=["*.v_proj"])
    done = compress(small(tmp_path), made)
    skipped = {r.site: r.notes["reason"] for r in done.records if r.step == "skip"}
    assert "*.v_proj" in skipped["model.layers.0.self_attn.v_proj"]
    names = set(Folder(done.path).tensors)
    assert "model.layers.0.self_attn.v_proj.weight" in names
    assert "model.layers.0.mlp.up_proj.weight" not in names
    assert agrees(done.path)


def test_ranks_that_are_not_worth_it_are_left_out(tmp_path: Path) -> None:
    step = {"use": "svd", "format": "lowrank-12", "energy": 0.8}
    done = compress(small(tmp_path), recipe(tmp_path / "r.yaml", [step]))
    schemes = Folder(done.path).config["quantization_config"]["schemes"]
    ranks = {format_.rank for s in schemes if isinstance(format_ := parse(s["format"]), LowRank)}
    assert len(ranks) > 1
    assert max(ranks) <= 12
    assert agrees(done.path)


def test_ranks_that_no_matrix_has_are_refused(tmp_path: Path) -> None:
    made = recipe(tmp_path / "r.yaml", [{"use": "svd", "format": "lowrank-999"}])
    with pytest.raises(RecipeError, match="lowrank-999 has rank 999, a matrix of"):
        compress(small(tmp_path), made)


OTHERS = [pytest.param(f, marks=pytest.mark.slow) for f in sorted(set(EXAMPLES) - set(CHOSEN))]


@pytest.mark.parametrize("format_", [*CHOSEN, *OTHERS])
def test_formats_by_both_methods(format_: str, tmp_path: Path) -> None:
    source = small(tmp_path)
    others = {LowRank: "svd", Corrected: "residual"}
    for use in ("rtn", others.get(type(parse(format_)), "gptq")):
        made = recipe(tmp_path / f"{use}.yaml", [{"use": use, "format": format_}])
        done = compress(source, made, out=tmp_path / use)
        assert agrees_in_bfloat16(done.path) if format_ == "nvfp4" else agrees(done.path)
        if not isinstance(parse(format_), Float):
            assert tensor_bytes(done.path) < tensor_bytes(source)
