"""Mixed precision by sensitivity, from the recipe to what transformers loads."""

from pathlib import Path

import pytest
from tests.interop.pipeline import (
    apart,
    compress,
    ours,
    patch_reload,
    recipe,
    saved,
    theirs,
    tiny,
)  # fmt: skip

import whet
from whet.base.errors import RecipeError
from whet.recipe.file import dumps, loads, preset_names, read
from whet.store.folder import Folder
from whet.store.manifest import read_manifest

pytest.importorskip("compressed_tensors")
TOLERANCE = 1e-3
STEPS = [
    {"use": "rtn", "format": "int4-g16"},
    {"use": "rtn", "format": "int8-g16", "where": ["embed", "head"], "range": "minmax"},
]
FORMATS = ["int3-g16", "int4-g16", "int6-g16"]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_reload(monkeypatch)


def mixed(path: Path, bits: float, **more: object) -> Path:
    asked = {"bits": bits, "formats": FORMATS, "samples": 2, "length": 16} | more
    return recipe(path, STEPS, allocation=asked)


@pytest.mark.parametrize("tables", [[], ["int4-g16", "int6-g16", "int8-g16"]])
@pytest.mark.parametrize("case", ["llama-tied", "llama"])
def test_the_size_is_known_before_and_the_recipe_gives_the_same_bytes(
    case: str, tables: list[str], tmp_path: Path
) -> None:
    source = saved(tiny(case), tmp_path / "model")
    asked = mixed(tmp_path / "r.yaml", 9.6 if tables else 10.0, tables=tables)
    before = whet.preview(source, asked)
    done = compress(source, asked)
    folder = Folder(done.path)
    assert sum(s.info.nbytes for s in folder.tensors.values()) == before.weights_bytes
    assert apart(theirs(done.path), ours(done.path)) <= TOLERANCE
    settled = loads((done.path / "recipe.yaml").read_text())
    assert settled.allocation is None
    again = compress(source, done.path / "recipe.yaml", out=tmp_path / "again")
    weights = [name for name in read_manifest(done.path)["files"] if name.endswith("safetensors")]
    for name in weights:
        assert (again.path / name).read_bytes() == (done.path / name).read_bytes()


def test_linears_of_one_input_share_a_format(tmp_path: Path) -> None:
    done = compress(saved(tiny("llama"), tmp_path / "model"), mixed(tmp_path / "r.yaml", 10.0))
    formats = {r.site: r.notes["format"] for r in done.records if "format" in r.notes}
    for layer in range(2):
        block = {k.rpartition(".")[2]: v for k, v in formats.items() if f"layers.{layer}." in k}
        assert block["q_proj"] == block["k_proj"] == block["v_proj"]
        assert block["gate_proj"] == block["up_proj"]


def test_what_cannot_be_allocated_is_refused(tmp_path: Path) -> None:
    source = saved(tiny("llama"), tmp_path / "model")
    with pytest.raises(RecipeError, match="smallest of its formats need"):
        compress(source, mixed(tmp_path / "r.yaml", 2.0))
    steps = [{"use": "depth", "keep": 1}, *STEPS]
    asked = recipe(tmp_path / "d.yaml", steps, allocation={"bits": 5.0, "formats": FORMATS})
    with pytest.raises(RecipeError, match="steps over the whole model"):
        compress(source, asked)


@pytest.mark.parametrize("name", ["small", "balanced", "near-lossless"])
def test_presets_are_recipes(name: str) -> None:
    asked = read(name, ["allocation.bits=5.0"])
    assert loads(dumps(asked)) == asked
    assert asked.allocation is not None
    assert asked.allocation.bits == 5.0


PLAIN = {"plain", "slim25", "half-depth-distilled"}  # they leave a plain model


@pytest.mark.parametrize("name", sorted(set(preset_names()) - PLAIN))
def test_every_preset_rounds_embedding_and_head(name: str) -> None:
    steps = [step for step in read(name).steps if step.where == ("embed", "head")]
    assert [str(step.use.format) for step in steps] == ["int8-g64"]  # type: ignore[union-attr]


@pytest.mark.parametrize("case", ["llama-tied", "llama", "gpt2"])
def test_embedding_and_head_may_be_kept(case: str, tmp_path: Path) -> None:
    source = saved(
        tiny(case, **({} if case == "gpt2" else {"num_hidden_layers": 1})), tmp_path / "m"
    )
    kept = compress(source, "int4-fast", keep_embeddings=True)
    rounded = compress(source, "int4-fast", out=tmp_path / "rounded")
    left = {r.site for r in kept.records if r.step == "skip"}
    assert {"lm_head", "model.embed_tokens" if "llama" in case else "transformer.wte"} <= left
    assert Folder(kept.path).nbytes > Folder(rounded.path).nbytes
