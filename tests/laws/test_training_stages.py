"""Recipes with passes that train: published whole, resumed to the same bytes."""

import json
from pathlib import Path

import pytest
from tests.interop.pipeline import here, recipe, tensor_bytes
from tests.laws.test_resume import digests
from tests.small import FEW, small_model, stop_at

import whet
from whet.api import compression
from whet.base.errors import StoppedError

SHORT = {"tokens": 6 * 2 * 16, "length": 16, "batch": 2}
INT3 = {"use": "rtn", "format": "int3-g32"}
GPTQ = {"use": "gptq", "format": "int2-g64-affine"}
ORDERS = {
    "distilled": [{"use": "distill", "prompt": 4, **SHORT}],
    "distilled after a smaller student": [
        {"use": "student", "layers": 1},
        {"use": "distill", "prompt": 4, **SHORT},
        INT3,
    ],
    "codes trained": [INT3, {"use": "qat", "codes": True, "prompt": 4, **SHORT}],
    "scales trained": [GPTQ, {"use": "qat", "codes": False, "prompt": 4, **SHORT}],
    "nf4 trained": [{"use": "rtn", "format": "nf4-g64"}, {"use": "qat", "prompt": 4, **SHORT}],
    "blocks reconstructed": [GPTQ, {"use": "reconstruct", "steps": 3}],
    "fine-tuned": [{"use": "finetune", "scope": "lora-2", **SHORT}],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small", layers=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "reload", here)


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_trained_is_published_and_has_the_planned_size(
    model: Path, tmp_path: Path, order: str
) -> None:
    steps = recipe(tmp_path / "r.yaml", ORDERS[order])
    out = whet.compress(model, steps, set=FEW, out=tmp_path / "out").path
    assert compression.bound(str(model), str(steps), FEW).weights_bytes == tensor_bytes(out)
    told = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    names = {line["step"] for line in told}
    assert {step["use"] for step in ORDERS[order]} <= names


@pytest.mark.parametrize("order", ["distilled", "codes trained", "blocks reconstructed"])
def test_stopped_while_it_trains_it_goes_on_to_the_same_bytes(
    model: Path, tmp_path: Path, order: str
) -> None:
    steps = recipe(tmp_path / "r.yaml", ORDERS[order])
    whet.compress(model, steps, set=FEW, out=tmp_path / "straight")
    with pytest.raises(StoppedError, match="Run the same command"):
        whet.compress(model, steps, set=FEW, out=tmp_path / "out", **stop_at(3))
    whet.compress(model, steps, set=FEW, out=tmp_path / "out", resume="required")
    assert digests(tmp_path / "out") == digests(tmp_path / "straight")
