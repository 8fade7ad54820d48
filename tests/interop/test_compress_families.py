"""Every family, from a folder of transformers through the whole pipeline back to transformers."""

from pathlib import Path

import pytest
import torch
from tests.interop.pipeline import (
    TOLERANCE,
    apart,
    compress,
    distance,
    ids_of,
    ours,
    patch_reload,
    saved,
    stack,
    tensor_bytes,
    theirs,
    tiny,
)  # fmt: skip
from tests.unit.model.tiny import CASES, STACKED

from whet.base.record import Record
from whet.store.folder import Folder

pytest.importorskip("compressed_tensors")
CHOSEN = ("llama-tied", "gemma3", "gpt2")
slow = pytest.mark.slow
WHETS_OWN = (
    "gpt2",
    "gpt2-depth",
    "mixtral-window",
)  # stored transposed; experts of several schemes


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_reload(monkeypatch)


def notes(records: tuple[Record, ...], step: str) -> dict[str, str]:
    return next(dict(record.notes) for record in records if record.step == step)


OTHERS = sorted(set(CASES) - set(CHOSEN) - set(STACKED))


@pytest.mark.parametrize("case", [*CHOSEN, *(pytest.param(case, marks=slow) for case in OTHERS)])
def test_families(case: str, tmp_path: Path) -> None:
    model = tiny(case)
    done = compress(saved(model, tmp_path / "model", torch.bfloat16), "int4")
    dialect = "whet" if case in WHETS_OWN else "compressed-tensors"
    assert notes(done.records, "output")["dialect"] == dialect
    assert apart(theirs(done.path), ours(done.path)) <= TOLERANCE
    with torch.inference_mode():
        assert 0 < distance(ours(done.path), model(ids_of()).logits) < 0.5


@slow
@pytest.mark.parametrize("layout", ["apart", "stacked"])
@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe-some"])
@pytest.mark.parametrize("format_", ["int4-g16-f32", "int4-channel-f32"])
def test_experts_in_both_layouts(case: str, layout: str, format_: str, tmp_path: Path) -> None:
    """Both dialects: 24 inputs have shorter groups. Scales are f32, as transformers decodes in theirs."""
    model = tiny(case)
    path = saved(model, tmp_path / "model")
    source = stack(model, path) if layout == "stacked" else path
    done = compress(source, "int4", set=[f"gptq.format={format_}"])
    assert apart(theirs(done.path), ours(done.path)) <= TOLERANCE
    assert not any(".gate_up_proj" in name for name in Folder(done.path).tensors)


@pytest.mark.parametrize("case", ["mixtral", pytest.param("qwen3_moe", marks=slow)])
def test_both_layouts_give_the_same_weights(case: str, tmp_path: Path) -> None:
    model = tiny(case)
    one = compress(saved(model, tmp_path / "apart"))
    other = compress(stack(model, saved(model, tmp_path / "stacked")))
    assert ours(one.path).equal(ours(other.path))


@pytest.mark.parametrize("case", [pytest.param("mixtral", marks=slow), "qwen3_moe"])
def test_an_expert_that_no_token_reaches(case: str, tmp_path: Path) -> None:
    """Of four routes two are positive, being opposites in pairs: the fifth, zero, is never taken."""
    model = tiny(case)
    for name, route in model.named_parameters():
        if name.endswith("mlp.gate.weight"):
            route.data[2:] = torch.cat([-route.data[:2], torch.zeros_like(route.data[:1])])
    done = compress(saved(model, tmp_path / "model"))
    said = {r.site: r.fallback for r in done.records if r.step == "gptq" and r.fallback}
    assert {site.split("experts.")[1][0] for site in said} == {"4"}
    assert len(said) == 6
    assert apart(theirs(done.path), ours(done.path)) <= TOLERANCE


@pytest.mark.parametrize("case", ["mixtral", pytest.param("qwen3_moe-some", marks=slow)])
def test_experts_may_stay_plain(case: str, tmp_path: Path) -> None:
    model = tiny(case)
    path = stack(model, saved(model, tmp_path / "model"))
    done = compress(path, "int4", set=["gptq.where=attn.*"])
    assert apart(theirs(done.path), ours(done.path)) <= TOLERANCE
    assert notes(done.records, "output")["dialect"] == "whet"
    assert tensor_bytes(done.path) < tensor_bytes(path)
