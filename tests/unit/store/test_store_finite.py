"""Numbers that are none are found, by name and index, in every float type."""

import math
from pathlib import Path

import pytest
import torch

from whet.store import finite
from whet.store.finite import find_nonfinite
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.writer import write_shard

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def folder(path: Path, **tensors: torch.Tensor) -> Folder:
    (path / "config.json").write_text("{}")
    write_shard(path / "model.safetensors", tensors)
    return Folder(path)


def test_demo_is_finite():
    assert find_nonfinite(Folder(demo())) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_finds_the_first(dtype: torch.dtype, value: float, tmp_path: Path):
    bad = torch.randn(7, 11).to(dtype)
    bad[3, 4] = value
    bad[5, 6] = value
    assert find_nonfinite(folder(tmp_path, good=torch.ones(3), bad=bad)) == ("bad", (3, 4))


def test_float8_types(tmp_path: Path):
    e5m2 = torch.tensor([1.0, math.inf]).to(torch.float8_e5m2)
    assert find_nonfinite(folder(tmp_path, x=e5m2)) == ("x", (1,))
    e4m3 = torch.tensor([448.0, math.nan]).to(torch.float8_e4m3fn)
    assert find_nonfinite(folder(tmp_path, x=e4m3)) == ("x", (1,))


def test_crosses_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(finite, "CHUNK", 64)
    bad = torch.zeros(100, 3)
    bad[90, 2] = math.nan
    assert find_nonfinite(folder(tmp_path, bad=bad)) == ("bad", (90, 2))


def test_extremes_are_finite(tmp_path: Path):
    tensors = {
        str(d).rpartition(".")[2]: torch.tensor([torch.finfo(d).max, torch.finfo(d).tiny], dtype=d)
        for d in FLOATS
    }
    codes = torch.full((4,), 255, dtype=torch.uint8)
    assert find_nonfinite(folder(tmp_path, codes=codes, **tensors)) is None
