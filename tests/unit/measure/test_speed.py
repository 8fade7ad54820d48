import json
from pathlib import Path

import pytest
import torch

from whet.base.record import Record
from whet.measure.bandwidth import bandwidth, by_numpy, token_bytes
from whet.measure.speed import kernels, speed
from whet.runtime.engine import load
from whet.runtime.used import used
from whet.store.folder import Folder
from whet.store.resolve import demo


@pytest.fixture(scope="module")
def records() -> list[Record]:
    engines = [load("demo", "reference"), load("demo", "reference", unpacked=True)]
    found = speed(engines, prompt=16, others=(8, 24, 5000), new=4, runs=5, memory=False)
    return [one for one in found if one.step == "speed"]


def test_each_engine_has_a_record_of_its_speed(records: list[Record]) -> None:
    assert [one.step for one in records] == ["speed", "speed"]
    for one in records:
        assert {"prefill_16", "decode", "ttft", "memory_read", "bandwidth_share"} <= set(one.facts)
        assert {"prefill_8", "prefill_24", "decode_24", "ttft_8"} <= set(one.facts)
        assert "prefill_5000" not in one.facts
        assert one.facts["decode"].unit == "token/s"
        assert "median of 5 alternating runs" in one.facts["decode"].how
        assert one.notes["executor"] == "reference"
        assert one.notes["threads"] == str(torch.get_num_threads())
    assert [one.notes["weights"] for one in records] == ["decoded at use", "decoded at load"]


def test_medians_lie_in_their_intervals(records: list[Record]) -> None:
    for one in records:
        for name in ("prefill_16", "decode", "ttft", "memory_read"):
            low, high = one.facts[f"{name}_low"].value, one.facts[f"{name}_high"].value
            assert 0 < low <= one.facts[name].value <= high


def test_prompts_are_shortened_where_the_context_is_small(tmp_path: Path) -> None:
    for path in demo().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))
    found = speed([load(tmp_path)], prompt=5000, new=64, runs=1)
    assert {"prefill_20", "peak_rss", "peak_rss_model"} <= set(found[0].facts)


def test_bandwidth_is_a_rate() -> None:
    assert bandwidth(1) > 0
    assert by_numpy(2) > 0


def test_a_token_reads_every_weight_once() -> None:
    whole = sum(p.stat().st_size for p in demo().glob("*.safetensors"))
    assert 0.9 * whole < token_bytes(demo()) <= whole


def test_every_weight_names_its_kernel(tmp_path: Path) -> None:
    found = kernels(load("demo"))
    assert len(found) == 8 * 7 + 1
    assert {one.step for one in found} == {"kernel"}
    assert all(one.notes["kernel"] and one.notes["format"] == "bf16" for one in found)
    assert {one.notes["kernel"] for one in kernels(load("demo", "reference"))} == {"reference"}


def test_where_kernels_are_missing_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whet.runtime.used.missing", lambda: "no compiler was here")
    assert {(one.kernel, one.refused) for one in used(Folder(demo()))} == {
        ("", ("no compiler was here",))
    }
