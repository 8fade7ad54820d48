"""A recipe that trains, carried out by the processes that torchrun starts, gives what one gives."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.interop.pipeline import here, recipe
from tests.small import FEW, small_model
from tests.torchrun import torchrun

import whet
from whet.api import compression
from whet.base.errors import RecipeError

STEPS = [
    {"use": "rtn", "format": "int4-g32"},
    {"use": "qat", "codes": True, "prompt": 4, "tokens": 3 * 2 * 16, "length": 16, "batch": 2,
     "parts": 2, "sharded": True},
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small", layers=1)


def test_two_processes_publish_what_one_publishes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recipe(tmp_path / "r.yaml", STEPS)
    told = [word for setting in FEW for word in ("--set", setting)]
    words = ["-m", "whet", "compress", str(model), "--recipe", str(steps), *told]
    assert torchrun(2, *words, "-o", str(tmp_path / "two")).count("report: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml", "two"]
    monkeypatch.setattr(compression, "reload", here)
    whet.compress(model, steps, set=FEW, out=tmp_path / "one")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert float((two[name] != value).float().mean()) <= 0.01, name


def test_what_one_process_does_is_refused_to_several(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recipe(tmp_path / "r.yaml", STEPS)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "3"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match="multiple of 3"):
        whet.compress(model, steps, set=FEW, out=tmp_path / "out")
    with pytest.raises(RecipeError, match="without torchrun"):
        whet.search(model, out=tmp_path / "out", max_size="1MB")
