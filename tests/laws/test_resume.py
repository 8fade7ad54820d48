"""A run that is stopped or killed at any moment goes on to the same bytes; a changed one is refused."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.small import FEW, small_model, stop_at

import whet
from whet.base.errors import IdentityError, MissingError, StoppedError, WhetError
from whet.recipe import carry, execute
from whet.recipe.progress import Silence

OF_THE_RUN = {"run.jsonl", "report.html", "report.md", "manifest.json"}  # these tell times
SETTINGS = (*FEW, "gptq.format=int3-g64-affine")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small", layers=3)


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("straight") / "out"
    whet.compress(model, "int3", set=SETTINGS, out=out)
    return digests(out)


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.iterdir() if p.name not in OF_THE_RUN)
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_stopped_before_any_part_it_goes_on_to_the_same_bytes(
    model: Path, straight: dict[str, str], tmp_path: Path, part: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError, match="Run the same command"):
        whet.compress(model, "int3", set=SETTINGS, out=out, **stop_at(part))
    assert not out.exists()
    whet.compress(model, "int3", set=SETTINGS, out=out, resume="required")
    assert digests(out) == straight
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("memory", ["1B", None])
@pytest.mark.parametrize("interval", [0.0, float("inf")])
def test_interrupted_within_a_part_it_goes_on_to_the_same_bytes(
    model: Path,
    straight: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: str | None,
    interval: float,
) -> None:
    class Interrupt(Silence):
        def advance(self, done: int, what: str) -> None:
            if done == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(execute, "SAVE_INTERVAL_S", interval)
    asked = {"set": SETTINGS, "out": tmp_path / "out", "memory": memory}
    with pytest.raises(KeyboardInterrupt):
        whet.compress(model, "int3", **asked, progress=Interrupt())
    states = sorted(p.name for p in (tmp_path / ".out.partial" / "hidden-states").iterdir())
    saved = memory is not None or interval == 0
    names = ("ideal", "probe", "reference", "working")
    assert states == ([f"{name}-0002.bin" for name in names] if saved else [])
    whet.compress(model, "int3", **asked, resume="required" if saved else "auto")
    assert digests(tmp_path / "out") == straight


def test_stopped_after_the_last_part_it_goes_on_to_the_same_bytes(
    model: Path, straight: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(carry, "assemble", interrupted)
        with pytest.raises(KeyboardInterrupt):
            whet.compress(model, "int3", set=SETTINGS, out=out)
    whet.compress(model, "int3", set=SETTINGS, out=out, resume="required")
    assert digests(out) == straight


def killed(model: Path, out: Path, after: float) -> bool:
    """Run the command and kill it after some seconds; return whether it was still running."""
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-m", "whet.cli.main", "compress", str(model), "--recipe", "int3"]
    run = subprocess.Popen(
        [*command, "-o", str(out), *sets],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        run.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        return True
    assert run.returncode == 0
    return False


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    began = time.perf_counter()
    assert not killed(model, tmp_path / "whole", 600)
    long = time.perf_counter() - began
    for attempt in range(12):
        out = tmp_path / f"out-{attempt}"
        while killed(model, out, chance.uniform(0.1, 1.0) * long):
            assert not out.exists() or digests(out) == digests(tmp_path / "whole")
            if out.exists():
                break
        assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "calibration|recipe"),
        ({"set": (*SETTINGS, "gptq.damping=0.02")}, "recipe"),
        ({"set": (*SETTINGS, "calibration.samples=5")}, "calibration"),
    ],
)
def test_a_changed_run_is_refused_and_keeps_what_was_done(
    model: Path, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    out = tmp_path / "out"
    asked: dict[str, object] = {"set": SETTINGS, "out": out}
    with pytest.raises(StoppedError):
        whet.compress(model, "int3", **asked, **stop_at(2))
    with pytest.raises(IdentityError, match=named):
        whet.compress(model, "int3", **(asked | change))
    assert (tmp_path / ".out.partial" / "progress.json").is_file()


def test_a_changed_weight_is_named(tmp_path: Path) -> None:
    model, out = small_model(tmp_path / "model"), tmp_path / "out"
    with pytest.raises(StoppedError):
        whet.compress(model, "int3", set=SETTINGS, out=out, **stop_at(1))
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IdentityError, match=r"source/model\.safetensors"):
        whet.compress(model, "int3", set=SETTINGS, out=out)


def test_resume_required_needs_a_run(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no interrupted run"):
        whet.compress(model, "int3", set=SETTINGS, out=tmp_path / "out", resume="required")
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_nothing(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("too short")
    with pytest.raises(WhetError):
        whet.compress(model, "int3", set=SETTINGS, out=tmp_path / "out", calibration=str(text))
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]
