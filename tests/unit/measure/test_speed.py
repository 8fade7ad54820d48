from dataclasses import replace

import pytest
import torch

from whet.base.record import Record
from whet.measure.speed import bandwidth, speed
from whet.runtime.engine import load


@pytest.fixture(scope="module")
def records() -> list[Record]:
    engines = [load("demo"), load("demo", unpacked=True)]
    return speed(engines, prompt=16, new=4, runs=5, memory=False)


def test_each_engine_has_a_record_of_its_speed(records: list[Record]) -> None:
    assert [one.step for one in records] == ["speed", "speed"]
    for one in records:
        assert {"prefill_16", "decode", "ttft", "memory_read"} <= set(one.facts)
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


def test_prompts_are_shortened_where_the_context_is_small() -> None:
    engine = load("demo")
    engine.model.arch = replace(engine.model.arch, context=40)
    found = speed([engine], prompt=5000, new=64, runs=1)
    assert {"prefill_20", "peak_rss", "peak_rss_model"} <= set(found[0].facts)


def test_bandwidth_is_a_rate() -> None:
    assert bandwidth() > 0
