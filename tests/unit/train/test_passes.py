"""Passes that train: they bring a damaged model nearer to the original, or to the text."""

from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny import source
from tests.unit.train.models import noised, task, text, with_tensors

from whet.base.errors import FolderError, StoppedError
from whet.methods.distill.distill import Distill
from whet.methods.distill.finetune import Finetune
from whet.model.decoder import load
from whet.model.source import InMemory
from whet.train.features import attention_distance, distance, matched
from whet.train.sampling import continued

SHORT = {"tokens": 30 * 8 * 16, "length": 16, "batch": 8, "lr": 5e-3}


@torch.no_grad()
def apart(one: InMemory, other: InMemory) -> float:
    ids = text(200, 16)[150:]
    p, q = (load(model)(ids).log_softmax(-1) for model in (other, one))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "reverse"},
        {"loss": "jsd", "mix": 0.5},
        {"loss": "skew"},
        {"temperature": 2.0},
        {"features": 1.0},
        {"features": 1.0, "measure": "mse"},
        {"attention": 1.0},
        {"features": 0.5, "attention": 0.5},
        {"cached": 16},
        {"own": 0.5},
        {"scope": "lora-8"},
        {"scope": "norms"},
        {"thrifty": True, "parts": 2, "schedule": "wsd"},
    ],
    ids=str,
)
def test_distillation_brings_a_damaged_model_nearer(tmp_path: Path, settings):
    original = source("llama")
    student = noised(original, 0.04)
    use = Distill(**SHORT, prompt=4, **settings)
    done = use.run(task(tmp_path, student))
    before, after = (
        apart(student, original),
        apart(with_tensors(student, dict(done.tensors)), original),
    )
    assert after < (0.98 if settings.get("scope") == "norms" else 0.7) * before


def test_text_alone_teaches_the_text(tmp_path: Path):
    done = Finetune(**SHORT | {"lr": 1e-2}).run(task(tmp_path))
    facts = {name: fact.value for name, fact in done.facts[""].items()}
    assert facts["loss_last"] < 0.8 * facts["loss_first"]
    assert facts["steps"] == 30


def test_a_teacher_with_other_tokens_is_refused(tmp_path: Path):
    other = source("gpt2")
    wide = dict(other.tensors) | {
        "transformer.wte.weight": torch.randn(70, 32),
        "lm_head.weight": torch.randn(70, 32),
    }
    teacher = InMemory(dict(other.config) | {"vocab_size": 70}, wide)
    with pytest.raises(FolderError, match="vocabularies of 70 and 61"):
        Distill(**SHORT, prompt=4).run(task(tmp_path, teacher=teacher))


def test_what_is_kept_of_another_training_is_refused(tmp_path: Path):
    asked = iter([False, True])
    with pytest.raises(StoppedError):
        Finetune(**SHORT).run(task(tmp_path, stopped=lambda: next(asked)))
    for other in ({"tokens": 20 * 8 * 16}, {"scope": "norms"}):
        with pytest.raises(FolderError, match="state of another training"):
            Finetune(**SHORT | other).run(task(tmp_path))
    state = tmp_path / "training.safetensors"
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(FolderError, match=r"training\.safetensors"):
        Finetune(**SHORT).run(task(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scope": "lora-0"}, "scope"),
        ({"scope": "some"}, "scope"),
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 1.5}, "alpha"),
        ({"own": -0.1}, "own"),
        ({"prompt": 256}, "prompt"),
        ({"batch": 8, "parts": 3}, "multiple"),
        ({"cached": 8, "features": 1.0}, "cached"),
        ({"cached": 8, "attention": 1.0}, "cached"),
        ({"attention": -1.0}, "attention"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Distill(**settings)


def test_layers_are_matched_by_their_share_of_the_depth():
    assert matched(8, 8) == tuple(range(8))
    assert matched(2, 8) == (3, 7)
    assert matched(3, 8) == (2, 5, 7)


@pytest.mark.parametrize("measure", ["cosine", "mse"])
def test_states_are_compared_whatever_their_size(measure):
    x = torch.randn(5, 8)
    assert distance(x, 3 * x, measure).abs().max() < 1e-5
    assert distance(x, torch.randn(5, 8), measure).min() > 0


def test_a_model_goes_on_from_its_prompt_the_same_way_for_one_seed():
    model = load(source("llama"))
    one, same, other = (continued(model, text(3, 4), 12, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one[:, :4], text(3, 4))
    assert one.shape == (3, 12)


def test_attention_is_compared_head_by_head_or_on_the_whole():
    one, other = (torch.rand(2, heads, 5, 5).tril().add(1e-3).tril() for heads in (4, 4))
    p, q = (x / x.sum(-1, keepdim=True) for x in (one, other))
    by_hand = [
        sum(float(a * (a / b).log()) for a, b in zip(p[n, h, t], q[n, h, t], strict=True) if a > 0)
        for n in range(2)
        for h in range(4)
        for t in range(5)
    ]
    assert float(attention_distance(q, p)) == pytest.approx(sum(by_hand) / 40, rel=1e-4)
    assert float(attention_distance(p, p)) == pytest.approx(0, abs=1e-6)
    few = attention_distance(q[:, :2], p)
    whole = attention_distance(q[:, :2].mean(1, keepdim=True), p.mean(1, keepdim=True))
    assert torch.equal(few, whole)
    assert float(few) > 0
