"""The demo model measured on the text that ships: figures by transformers, and beside itself."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from whet.base.record import Record
from whet.measure.quality import compare
from whet.measure.windows import windows
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

COUNT, LENGTH = 8, 96
TEXT = {"count": COUNT, "length": LENGTH}


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with the matrices of its blocks rounded to 4 bit, stored as plain numbers."""
    folder = tmp_path_factory.mktemp("rounded")
    for path in demo().iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "proj" in name:
            groups = tensor.float().reshape(-1, 64)
            scale = groups.abs().amax(1, keepdim=True) / 7
            tensors[name] = ((groups / scale).round() * scale).reshape(tensor.shape).bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def measured(rounded: Path) -> list[Record]:
    return compare(rounded, "demo", executor="reference", **TEXT)


def value(record: Record, name: str) -> float:
    return record.facts[name].value


def test_a_folder_against_itself_differs_in_nothing() -> None:
    found = compare("demo", "demo", **TEXT)
    assert len(found) == 1
    zero = ("kl_mean", "kl_mean_high", "kl_median", "kl_max", "ppl_delta", "ppl_delta_high")
    assert all(value(found[0], name) == 0 for name in zero)
    assert value(found[0], "top1") == value(found[0], "top1_low") == 1
    assert value(found[0], "delta_p_rms") == 0


def test_figures_are_those_of_transformers(rounded: Path, measured: list[Record]) -> None:
    found = windows("builtin", Tokenizer(demo()), COUNT, LENGTH).rows
    rows = torch.from_numpy(np.stack(found))
    logs = []
    for folder in (demo(), rounded):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.inference_mode():
            logits = model(rows).logits
        logs.append(logits.double().log_softmax(-1))
    before, after = logs
    following = rows[:, 1:, None]
    p, q = (log[:, :-1].gather(2, following)[..., 0] for log in logs)
    expected = {
        "ppl_original": math.exp(-p.mean()),
        "ppl": math.exp(-q.mean()),
        "ppl_delta": math.exp(-q.mean()) - math.exp(-p.mean()),
        "kl_mean": float((before.exp() * (before - after)).sum(-1).mean()),
        "top1": float((before.argmax(-1) == after.argmax(-1)).double().mean()),
        "delta_p_rms": float((q.exp() - p.exp()).square().mean().sqrt()),
    }
    for name, number in expected.items():
        assert value(measured[0], name) == pytest.approx(number, rel=2e-3), name
    assert value(measured[0], "tokens") == COUNT * LENGTH


def test_the_demo_reads_the_text_as_well_as_it_ever_did() -> None:
    found = compare("demo", **TEXT)
    assert value(found[0], "ppl") == pytest.approx(41.189, rel=1e-3)
    assert "kl_mean" not in found[0].facts


def test_intervals_hold_their_numbers(measured: list[Record]) -> None:
    facts = measured[0].facts
    ends = [name.removesuffix("_low") for name in facts if name.endswith("_low")]
    assert {"ppl", "ppl_original", "ppl_delta", "kl_mean", "top1"} <= set(ends)
    for name in ends:
        low, high = value(measured[0], f"{name}_low"), value(measured[0], f"{name}_high")
        assert low < value(measured[0], name) < high
    assert value(measured[0], "kl_median") < value(measured[0], "kl_mean")
    assert value(measured[0], "kl_p99") < value(measured[0], "kl_max")


def test_the_paired_difference_is_narrower_than_either_perplexity(measured: list[Record]) -> None:
    width = {
        name: value(measured[0], f"{name}_high") - value(measured[0], f"{name}_low")
        for name in ("ppl", "ppl_original", "ppl_delta")
    }
    assert width["ppl_delta"] < 0.3 * min(width["ppl"], width["ppl_original"])


def test_the_tokens_that_changed_most_come_with_their_context(measured: list[Record]) -> None:
    tokens = measured[1:]
    assert len(tokens) == 30
    assert all(one.step == "token" for one in tokens)
    kls = [value(one, "kl") for one in tokens]
    assert kls == sorted(kls, reverse=True)
    assert kls[0] == value(measured[0], "kl_max")
    text = "".join(Tokenizer(demo()).decode(r.tolist()) for r in rows_of_text())
    assert all(one.notes["context"].strip()[-12:] in text for one in tokens)
    assert any(one.notes["original"] != one.notes["compressed"] for one in tokens)
    assert all(0 < value(one, "p_original") <= 1 for one in tokens)


def rows_of_text() -> tuple[torch.Tensor, ...]:
    return windows("builtin", Tokenizer(demo()), COUNT, LENGTH).rows


def test_equal_seeds_give_equal_records(rounded: Path, measured: list[Record]) -> None:
    again = compare(rounded, "demo", executor="reference", **TEXT)
    assert again[1:] == measured[1:]
    for name, fact in again[0].facts.items():
        assert name == "peak_rss" or fact == measured[0].facts[name]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    compare("demo", count=6, length=32, told=lambda done, of: told.append((done, of)))
    assert told == [(done, 6) for done in range(1, 7)]
