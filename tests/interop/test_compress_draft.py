"""A recipe with a draft: a smaller model inside the folder, which guesses when it generates."""

import json
from pathlib import Path

import pytest
from tests.small import FEW, small_model

import whet
from whet.base.errors import RecipeError
from whet.cli.main import code
from whet.kernels.native import missing
from whet.runtime.engine import Engine
from whet.store.manifest import verify

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

RECIPE = """
name: with-draft
steps:
- use: rtn
  format: int8-channel
draft:
- use: depth
  keep: 2
- use: rtn
  format: int4-g32
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("draft") / "model", 3)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def made(model: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    whet.compress(model, recipe, out=out, set=FEW)
    return out


def said(engine: Engine) -> list[int]:
    return list(engine.generate([5, 9, 2], max_tokens=24, stop_ids=()))


def test_it_is_a_whole_folder_inside(made: Path) -> None:
    assert verify(made) == verify(made / "draft") == []
    config = json.loads((made / "draft" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert "A draft of" in (made / "report.md").read_text()
    (made / "draft" / "stray").touch()
    assert verify(made) == ["draft/stray is not in the manifest"]
    (made / "draft" / "stray").unlink()


def test_it_guesses_unless_told_otherwise(made: Path) -> None:
    guided, bare = whet.load(made), whet.load(made, draft=False)
    assert guided.draft is not None
    assert guided.draft.folder == made / "draft"
    assert bare.draft is None
    assert said(guided) == said(bare)
    assert guided.guessed.steps > 0
    assert whet.load(made, cache="kv4").draft is None  # which cannot take back what it has read


def test_speed_is_that_of_real_text_with_guesses(made: Path) -> None:
    speed = next(r for r in whet.measure(made, speed=True) if r.step == "speed")
    assert 1 <= speed.facts["tokens_a_step"].value <= 13
    assert "bandwidth_share" not in speed.facts


def test_its_recipe_makes_the_same_bytes(made: Path, model: Path, tmp_path: Path) -> None:
    again = whet.compress(model, made / "recipe.yaml", out=tmp_path / "again").path
    for name in ("model.safetensors", "draft/model.safetensors", "draft/config.json"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


def test_a_preview_counts_it(model: Path, recipe: Path, made: Path) -> None:
    found = whet.preview(model, recipe, set=FEW)
    size = (made / "draft" / "model.safetensors").stat().st_size
    assert 0 < found.draft_bytes < size < found.draft_bytes + 20_000  # and a header


def test_what_is_wrong_with_it_is_told_before_any_work(model: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(RECIPE.replace("keep: 2", "keep: 7"))
    with pytest.raises(RecipeError, match="depth"):
        whet.compress(model, wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_can_do_without(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(made), "Once", "--max-tokens", "8", "--temperature", "0"]
    texts: list[str] = []
    for more in ([], ["--no-draft"]):
        assert code([*words, *more]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""
    assert code([*words, "--no-draft", "--draft", str(made)]) == 2
    assert "contradict" in capsys.readouterr().err
