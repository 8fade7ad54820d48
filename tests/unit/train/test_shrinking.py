"""Pruning while training: exact shares, nested masks, exact resume."""

from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny import source
from tests.unit.train.models import task

from whet.base.errors import StoppedError
from whet.methods.distill.regularise import Regularise
from whet.train.shrinking import pruned_share

SHORT = {"tokens": 10 * 4 * 16, "length": 16, "batch": 4, "prompt": 4, "lr": 3e-3}
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
@pytest.mark.parametrize("penalty", ["none", "l1", "group"])
def test_the_share_that_was_asked_for_is_zero(tmp_path: Path, criterion, penalty):
    use = Regularise(**SHORT, sparsity=0.6, criterion=criterion, penalty=penalty)
    tensors = dict(use.run(task(tmp_path)).tensors)
    for name, value in tensors.items():
        zeros = int((value == 0).sum())
        inside = "_proj" in name
        assert zeros == (round(0.6 * value.numel()) if inside else 0), name


def test_what_is_pruned_grows_to_the_end_and_never_falls():
    shares = [pruned_share(step, 50, 0.7, 0.3) for step in range(50)]
    assert shares == sorted(shares)
    assert shares[35:] == [0.7] * 15
    assert shares[5] > 0.2


def test_stopped_and_resumed_it_prunes_the_same(tmp_path: Path):
    use = Regularise(**SHORT, criterion="movement")
    straight = dict(use.run(task(tmp_path / "a")).tensors)
    asked = iter([False] * 4 + [True])
    with pytest.raises(StoppedError):
        use.run(task(tmp_path / "b", stopped=lambda: next(asked)))
    resumed = dict(use.run(task(tmp_path / "b")).tensors)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_a_penalty_makes_weights_smaller(tmp_path: Path):
    original = source("llama").tensor(UP).float().abs().mean()
    sizes = [
        float(dict(use.run(task(tmp_path / str(i))).tensors)[UP].float().abs().mean())
        for i, use in enumerate(
            Regularise(**SHORT, sparsity=0.0, penalty=penalty, strength=1.0)
            for penalty in ("none", "l1")
        )
    ]
    assert sizes[1] < sizes[0]
    assert sizes[1] < float(original)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"sparsity": 1.0}, "sparsity"), ({"scope": "norms"}, "scope"), ({"strength": -1.0}, "str")],
)
def test_settings_out_of_their_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Regularise(**settings)
