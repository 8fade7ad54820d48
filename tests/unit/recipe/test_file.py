"""Recipe files: round trips, settings, and errors that name the place and the nearest word."""

from pathlib import Path

import pytest

from whet.base.errors import MissingError, RecipeError
from whet.recipe.file import dumps, loads, preset_names, read

MINIMAL = "name: x\nsteps:\n- use: rtn\n  format: int4-g64\n"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_survives_writing_and_reading(name: str) -> None:
    recipe = read(name)
    assert recipe.name == name
    assert loads(dumps(recipe)) == recipe


def test_a_draft_is_a_recipe_from_the_same_source() -> None:
    text = (
        MINIMAL + "seed: 3\ndraft:\n- use: depth\n  keep: 2\n- use: rtn\n  format: int8-channel\n"
    )
    recipe = loads(text)
    assert loads(dumps(recipe)) == recipe
    small = recipe.drafts
    assert small is not None
    assert [step.use.name for step in small.steps] == ["depth", "rtn"]
    assert (small.seed, small.draft, small.calibration) == (3, (), recipe.calibration)
    assert loads(MINIMAL).drafts is None
    assert "draft" not in dumps(loads(MINIMAL))


def test_defaults_are_written_out() -> None:
    text = dumps(loads(MINIMAL))
    assert "samples: 128" in text
    assert "seed: 0" in text
    assert "where:\n  - blocks" in text


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("rtn.format=int3-g64-affine", "int3-g64-affine"),
        ("1.format=int8-channel", "int8-channel"),
        ("calibration.samples=7", "samples: 7"),
        ("seed=5", "seed: 5"),
        ("skip=['*.down_proj']", "'*.down_proj'"),
    ],
)
def test_settings_reach_their_place(setting: str, found: str) -> None:
    assert found in dumps(loads(MINIMAL, [setting]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nsteps:\n- use: rnt\n", r"step 1: unknown method 'rnt'\nDid you mean 'rtn'\?"),
        (
            "name: x\nsteps:\n- use: rtn\n  fromat: int4-g64\n",
            r"step 1\.fromat: unknown field\nDid you mean 'format'\?",
        ),
        ("name: x\nsteps:\n- use: rtn\n  format: int99\n", "step 1.format: .*int99"),
        ("name: x\nstep: []\n", "steps: missing"),
        ("name: x\nsteps: []\n", "steps: .*at least 1"),
        ("- 1\n", "a recipe is a mapping"),
        ("name: x\nname: y\nsteps: []\n", "'name' stands twice"),
        ("a: &b [1]\nc: *b\n", "aliases"),
        ("name: [\n", "not valid YAML"),
        ("name: !!python/object/apply:os.system [ls]\nsteps: []\n", "not valid YAML"),
        ("name: x\nsteps:\n- format: int4-g64\n", "a step needs `use`"),
        ("name: x\nsteps:\n- use: rtn\ncalibration: {sample: 3}\n", "Did you mean 'samples'"),
        (
            "name: x\nsteps:\n- use: rtn\ncalibration: {samples: many}\n",
            r"calibration.samples: .*'many'",
        ),
        (
            "name: x\nsteps:\n- use: rtn\ndraft:\n- use: depht\n",
            "(?s)draft.step 1.*Did you mean 'depth'",
        ),
        ("[" * 40 + "]" * 40, "mapping|nests"),
        ("x: " + "{a: " * 40 + "1" + "}" * 40, "nests deeper"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        loads(text)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gptq.format=int4", "no step 'gptq'"),
        ("rtn.format", r"expected step\.field=value"),
        ("7.format=int4-g64", "no step '7'"),
        ("rtn.formt=int4-g64", "Did you mean 'format'"),
    ],
)
def test_wrong_settings_are_named(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        loads(MINIMAL, [setting])


def test_an_unknown_preset_offers_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'int4'"):
        read("int-4")


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        read(str(tmp_path / "none.yaml"))
