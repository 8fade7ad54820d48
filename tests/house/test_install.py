"""The light package in a fresh environment: it runs, reads, checks and measures, without torch."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tests.house.places import ROOT
from tests.small import FEW, small_model

import whet

CLEAN = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}}


def done(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    asked = [str(word) for word in words]
    return subprocess.run(asked, capture_output=True, text=True, check=False, env=CLEAN, cwd=cwd)


def heard(*words: str | Path, cwd: Path | None = None) -> str:
    found = done(*words, cwd=cwd)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds whet and what it needs, nothing else."""
    place = tmp_path_factory.mktemp("light")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler is here, and without kernels nothing runs without torch")
    venv.create(place / "env", with_pip=True)
    programs = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / Path(sys.executable).name
    probe = done(python, "-m", "pip", "download", "--no-deps", "-d", place, "click")
    if probe.returncode:
        pytest.skip(f"pip reaches no index: {probe.stderr.strip().splitlines()[-1][:200]}")
    heard(python, "-m", "pip", "install", ROOT)
    return programs


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_light_package_works_in_a_fresh_environment(environment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "int4"
    whet.compress(small_model(tmp_path / "source", 2), "int4-fast", set=FEW, out=folder)
    (tmp_path / "text.txt").write_text("It was a dark and stormy night. " * 40)
    python, light = environment / "python", environment / "whet"
    for package in ("torch", "transformers", "safetensors", "scipy"):
        assert done(python, "-c", f"import {package}").returncode, package
    for source in ("demo", folder):
        assert heard(light, "run", source, "It was", "--max-tokens", "4", "--kernels", "require")
        assert heard(light, "inspect", source)
        told = heard(light, "measure", source, "--data", tmp_path / "text.txt", cwd=tmp_path)
        assert "PPL" in told
    assert heard(light, "verify", folder)
    assert "int4" in heard(light, "list", "recipes")
    assert "native" in heard(light, "doctor")
    refused = done(light, "compress", "demo", cwd=tmp_path)
    assert refused.returncode == 69
    assert 'pip install "whet[compress]"' in refused.stderr
