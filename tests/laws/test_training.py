"""Laws of training: what is built to be trained computes the same; what is trained resumes exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny import CASES, source
from tests.unit.train.models import noised, task, text, with_tensors
from torch import Tensor

from whet.base.errors import StoppedError
from whet.methods.distill.distill import Distill
from whet.methods.distill.finetune import Finetune
from whet.model.decoder import load
from whet.train.forward import states
from whet.train.trainable import Scope, parameters, saved, trainable
from whet.train.training import Training

SHORT = {"tokens": 8 * 4 * 16, "length": 16, "batch": 4, "lr": 1e-2}
SCOPES = ["all", "norms", "lora-3"]
PASSES = [Distill(**SHORT, prompt=4), Finetune(**SHORT)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_trainable_model_computes_the_same_and_is_saved_as_it_was(case, scope):
    original = source(case)
    model, ids = load(original), text(2, 9)
    made = trainable(model, Scope.parse(scope), 1)
    with torch.no_grad():
        assert torch.allclose(made(ids), model(ids), atol=1e-6)
    for name, value in saved(made, original):
        stored = original.tensor(name)
        assert value.dtype == stored.dtype
        assert torch.equal(value, stored), name


@pytest.mark.parametrize("case", ["llama-biases", "gpt2", "gemma3", "qwen3_moe", "opt"])
def test_every_number_that_is_stored_is_trained(case):
    original = source(case)
    made = trainable(load(original), Scope.parse("all"), 1)
    made(text(2, 9)).square().mean().backward()
    trained = parameters(made)
    assert {n for n, p in trained.items() if p.grad is None and "experts" not in n} <= {
        n for n in trained if "31" in n
    } or case == "qwen3_moe"
    assert {name for name, _ in saved(made, original)} == set(original.names()) - {
        "lm_head.weight" if made.arch.tied else ""
    }


@pytest.mark.parametrize("scope", SCOPES)
def test_tied_weights_stay_tied(scope):
    made = trainable(load(source("llama-tied")), Scope.parse(scope), 1)
    assert made.embedding.linear is made.head.linear


@torch.no_grad()
def test_nothing_is_shared_with_the_model_that_it_was_made_from():
    original = source("llama")
    model = load(original)
    before = model(text(2, 9))
    for parameter in trainable(model, Scope.parse("all"), 1).parameters():
        parameter.add_(1.0)
    assert torch.equal(model(text(2, 9)), before)


def test_computing_blocks_twice_changes_nothing():
    original, grads = source("gemma2"), []
    for thrifty in (False, True):
        made = trainable(load(original), Scope.parse("all"), 1)
        states(made, text(2, 9), thrifty=thrifty)[-1].square().mean().backward()
        grads.append({n: p.grad for n, p in parameters(made).items() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


@pytest.mark.parametrize("use", PASSES, ids=lambda use: use.name)
@pytest.mark.parametrize("scope", SCOPES)
def test_stopped_and_resumed_training_gives_the_same_bits(tmp_path: Path, use: Training, scope):
    use = replace(use, scope=scope)
    student = noised(source("llama"), 0.05)
    straight = use.run(task(tmp_path / "a", student))
    expected = dict(straight.tensors)
    asked = iter([False] * 3 + [True])
    with pytest.raises(StoppedError):
        use.run(task(tmp_path / "b", student, stopped=lambda: next(asked)))
    resumed = use.run(task(tmp_path / "b", student))
    assert resumed.facts == straight.facts
    found = dict(resumed.tensors)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("scope", ["all", "lora-3"])
def test_pruned_weights_stay_pruned(tmp_path: Path, scope):
    original = source("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    mask = torch.rand(original.tensor(name).shape) > 0.5
    student = with_tensors(original, {name: original.tensor(name) * mask})
    kept, freed = (
        dict(Distill(**SHORT, prompt=4, scope=scope, keep_zeros=keep).run(t).tensors)
        for keep, t in (
            (True, task(tmp_path / "a", student)),
            (False, task(tmp_path / "b", student)),
        )
    )
    assert torch.equal(kept[name] != 0, mask)
    assert not torch.equal(kept[name], student.tensor(name))
    assert (freed[name] != 0).sum() > mask.sum()


def test_parts_of_a_step_add_up_to_the_step(tmp_path: Path):
    student = noised(source("llama"), 0.05)
    results: list[dict[str, Tensor]] = []
    for parts in (1, 2):
        use = Distill(**SHORT, prompt=4, parts=parts)
        results.append(dict(use.run(task(tmp_path / str(parts), student)).tensors))
    assert all(torch.allclose(results[0][n], results[1][n], atol=1e-4) for n in results[0])
