"""A recipe of several stages: planned on the shapes to come, resumed to the same bytes, published whole."""

import json
from pathlib import Path

import pytest
from tests.interop.pipeline import here, recipe, tensor_bytes
from tests.laws.test_resume import digests
from tests.small import FEW, small_model, stop_at

import whet
from whet import api
from whet.api import compression
from whet.base.errors import RecipeError, StoppedError
from whet.recipe.file import dumps, loads

DEPTH = {"use": "depth", "layers": [1]}
RTN = {"use": "rtn", "format": "int4-g64"}
ORDERS = {
    "model": [DEPTH],
    "model, streamed": [DEPTH, {"use": "gptq", "format": "int3-g64-affine"}],
    "streamed, model": [{"use": "rtn", "format": "f32"}, DEPTH],
    "model, model, streamed": [DEPTH, {"use": "depth", "layers": [0]}, RTN],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small", layers=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "reload", here)


@pytest.mark.parametrize("order", ORDERS)
def test_a_dry_run_knows_the_exact_size(model: Path, tmp_path: Path, order: str) -> None:
    steps = recipe(tmp_path / "r.yaml", ORDERS[order])
    out = whet.compress(model, steps, set=FEW, out=tmp_path / "out").path
    assert compression.bound(str(model), str(steps), FEW).weights_bytes == tensor_bytes(out)
    assert api.verify(out) == []
    assert api.inspect(out).sizes["layers"] == 3 - json.dumps(ORDERS[order]).count("depth")
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("straight")
    steps = recipe(folder / "r.yaml", [{"use": "rtn", "format": "f32"}, DEPTH, RTN])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "reload", here)
        out = whet.compress(model, steps, set=FEW, out=folder / "out").path
    return steps, digests(out)


@pytest.mark.parametrize("part", [1, 5, 7])
def test_stopped_in_any_stage_it_goes_on_to_the_same_bytes(
    model: Path, straight: tuple[Path, dict[str, str]], tmp_path: Path, part: int
) -> None:
    (steps, wanted), out = straight, tmp_path / "out"
    with pytest.raises(StoppedError, match="Run the same command"):
        whet.compress(model, steps, set=FEW, out=out, **stop_at(part))
    whet.compress(model, steps, set=FEW, out=out, resume="required")
    assert digests(out) == wanted


def test_records_tell_of_every_stage_in_order(model: Path, tmp_path: Path) -> None:
    steps = recipe(tmp_path / "r.yaml", [DEPTH, RTN])
    out = whet.compress(model, steps, set=FEW, out=tmp_path / "out").path
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    told = list(dict.fromkeys(line["step"] for line in lines))
    assert told.index("stage") < told.index("depth") < told.index("rtn") < told.index("output")
    stages = [line for line in lines if line["step"] == "stage"]
    assert [stage["notes"]["steps"] for stage in stages] == ["depth", "rtn"]
    assert stages[1]["facts"]["bytes"]["value"] == tensor_bytes(out)
    report = (out / "report.md").read_text()
    assert "depth" in report


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([RTN, DEPTH], "step 2 .depth. works on plain numbers, and a step before it has quantized"),
        ([DEPTH, RTN | {"where": "layers.2.*"}], "step 2 .rtn.: where = 'layers.2.*' matches no"),
        ([{"use": "depth", "layers": [7]}], "step 1 .depth. cannot change this model"),
        ([DEPTH | {"where": "blocks"}], "unknown field"),
    ],
)
def test_what_cannot_be_is_refused_before_work(
    model: Path, tmp_path: Path, steps: list[dict[str, object]], complaint: str
) -> None:
    path = recipe(tmp_path / "r.yaml", steps)
    with pytest.raises(RecipeError, match=complaint):
        whet.compress(model, path, set=FEW, out=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_a_recipe_reads_back_as_it_was_written() -> None:
    text = "name: x\nsteps:\n- {use: depth, layers: [1, 2]}\n- {use: rtn}\n"
    asked = loads(text)
    assert loads(dumps(asked)) == asked
    assert "where" not in dumps(asked).split("- use: rtn", maxsplit=1)[0]
