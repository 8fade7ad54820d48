"""What a dry run promises is what a run writes; what cannot fit is refused."""

from pathlib import Path

import pytest
from tests.interop.pipeline import (
    FEW,
    compress,
    patch_reload,
    saved,
    stack,
    tensor_bytes,
    tiny,
)  # fmt: skip

import whet
from whet.api import compression
from whet.base.errors import FitError
from whet.recipe import estimate

CASES = [("llama-tied", "int4"), ("qwen3_moe-some", "int3"), ("gpt2", "w8a8"), ("phi3", "nvfp4")]


@pytest.mark.parametrize(("case", "name"), CASES)
def test_size_is_exact(
    case: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_reload(monkeypatch)
    model = tiny(case)
    source = saved(model, tmp_path / "model")
    if "moe" in case:
        stack(model, source)
    done = compress(source, name)
    assert compression.bound(str(source), name, FEW).weights_bytes == tensor_bytes(done.path)


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    source = saved(tiny("llama"), tmp_path / "model")
    seen = whet.preview(source, "int4", set=FEW, out=tmp_path / "out")
    assert seen.need.how == "from a trial of one block"
    assert seen.need.seconds > 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_too_little_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tiny("llama"), tmp_path / "model")
    monkeypatch.setattr(estimate, "free_memory", lambda: 2**20)
    with pytest.raises(FitError, match="of memory"):
        compress(source)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
