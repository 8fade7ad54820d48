"""Pruning through the whole pipeline: written sparse, checked, and read back by transformers."""

from pathlib import Path
from typing import Any

import pytest
from tests.interop.pipeline import (
    TOLERANCE,
    apart,
    compress,
    ours,
    patch_reload,
    recipe,
    saved,
    tensor_bytes,
    theirs,
    tiny,
)

from whet.base.errors import RecipeError
from whet.formats.spec import parse
from whet.store.folder import Folder

SITE = "model.layers.0.mlp.up_proj"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_reload(monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved(tiny("llama", num_hidden_layers=1), tmp_path / "model")


def steps(*every: dict[str, Any]) -> list[dict[str, Any]]:
    return list(every)


@pytest.mark.parametrize(
    ("use", "format_"),
    [
        ("alps", "2:4(int4-g16)"),
        ("sparsegpt", "sparse50-tensor(bf16)"),
        ("wanda", "4:8(int8-channel)"),
        ("magnitude", "sparse50(nf4-g16)"),
    ],
)
def test_a_sparse_folder_is_smaller_and_reads_back(
    use: str, format_: str, source: Path, tmp_path: Path
) -> None:
    made = recipe(tmp_path / "r.yaml", steps({"use": use, "format": format_}))
    done = compress(source, made)
    assert tensor_bytes(done.path) < tensor_bytes(source)
    assert Folder(done.path).config["quantization_config"]["quant_method"] == "whet"
    assert f"{SITE}.weight_mask" in set(Folder(done.path).tensors)
    assert {r.notes["format"] for r in done.records if r.step == use} == {format_}
    assert apart(theirs(done.path), ours(done.path)) <= TOLERANCE


def test_pruning_and_then_rounding_keeps_the_mask(source: Path, tmp_path: Path) -> None:
    prune = {"use": "sparsegpt", "format": "2:4(bf16)"}
    alone = compress(source, recipe(tmp_path / "a.yaml", [prune]), out=tmp_path / "a")
    both = steps(prune, {"use": "gptq", "format": "2:4(int4-g16)"})
    done = compress(source, recipe(tmp_path / "b.yaml", both), out=tmp_path / "b")
    first, then = (stored(path) for path in (alone.path, done.path))
    assert not then[first == 0].any()
    assert str(parse("2:4(int4-g16)")) in str(Folder(done.path).config["quantization_config"])
    assert tensor_bytes(done.path) < tensor_bytes(alone.path)


def stored(path: Path) -> Any:
    """Return the first query projection, which reads the same inputs however later ones change."""
    import transformers

    import whet

    assert whet.__version__
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    return model.model.layers[0].self_attn.q_proj.weight.detach()


@pytest.mark.parametrize(
    ("every", "told"),
    [
        (steps({"use": "gptq", "format": "2:4(int4-g16)"}), "no step before it has made any"),
        (steps({"use": "rtn", "format": "sparse50(bf16)"}), "no step before it has made any"),
        (steps({"use": "hqq", "format": "2:4(int4-g16)"}), "hqq rounds every weight"),
        (steps({"use": "wanda", "format": "int4-g16"}), "keeps every weight"),
        (steps({"use": "wanda", "format": "5:4(bf16)"}), "keeps 5 of 4 weights"),
        (steps({"use": "wanda", "format": "3:7(bf16)"}), "do not divide by the 7 of 3:7"),
        (
            steps(
                {"use": "wanda", "format": "2:4(bf16)"},
                {"use": "gptq", "format": "4:8(int4-g16)"},
            ),
            "would both round",
        ),
        (
            steps(
                {"use": "wanda", "format": "2:4(int8-channel)"},
                {"use": "gptq", "format": "2:4(int4-g16)"},
            ),
            "would both round",
        ),
        (
            steps(
                {"use": "wanda", "format": "2:4(bf16)"},
                {"use": "alps", "format": "2:4(int4-g16)"},
            ),
            "would both round",
        ),
        (steps({"use": "alps", "where": "embed"}), "the embedding reads tokens"),
    ],
)
def test_mistakes_are_refused_before_work(
    every: list[dict[str, Any]], told: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=told) as caught:
        compress(source, recipe(tmp_path / "r.yaml", every))
    assert caught.value.hint
