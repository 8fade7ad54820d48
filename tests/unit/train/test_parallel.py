"""Processes that share the parts of a step, and divide what they train, train as one does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.torchrun import torchrun
from tests.unit.model.tiny import source
from tests.unit.train import member
from tests.unit.train.member import Case, Result
from tests.unit.train.models import noised, text
from torch import Tensor

from whet.base.errors import RecipeError, StoppedError
from whet.methods.distill.distill import Distill
from whet.methods.distill.finetune import Finetune
from whet.train.parallel import Team, complete

SHORT = {"tokens": 4 * 4 * 16, "length": 16, "batch": 4, "parts": 2, "lr": 1e-2, "clip": 0.1}
SIZE = 2


def case(use: str = "distill", family: str = "llama", **settings: Any) -> Case:
    """A case that is short; `format` and `stop` are the case's own."""
    teacher = source(family)
    own = {name: settings.pop(name) for name in ("format", "stop") if name in settings}
    told = {} if use == "finetune" else {"prompt": 4}
    student = dict(noised(teacher, 0.05).tensors)
    ids = text(64, 16)
    return Case(use, SHORT | told | settings, teacher.config, student, teacher.tensors, ids, **own)


def pruned(given: Case) -> Case:
    generator = torch.Generator().manual_seed(1)
    masks = {n: torch.rand(x.shape, generator=generator) > 0.5 for n, x in given.student.items()}
    masked = {n: x * masks[n] if x.dim() > 1 else x for n, x in given.student.items()}
    return replace(given, student=masked)


def shared() -> dict[str, Case]:
    """Cases that processes share, whether what they train is divided or not."""
    return {
        "plain": case(weight_decay=0.1),
        "experts": case(family="qwen3_moe"),
        "movement": case("regularise", criterion="movement", penalty="group", strength=1e-3),
        "cached": case(cached=16),
        "straight": case(),
        "stopped": case(stop=2),
        "begun": case(),  # by one process
    }


def weights() -> dict[str, Case]:
    """Cases of what is trained."""
    return {
        "tied": case(family="llama-tied", parts=4),
        "norms": case(scope="norms"),
        "factors": case(scope="lora-3"),
        "zeros": pruned(case()),
        "mask": case(format="2:4(bf16)", keep_zeros=False),
    }


def ways() -> dict[str, Case]:
    """Cases of how it is trained."""
    return {
        "text": case("finetune", thrifty=True),
        "features": case(features=0.5, attention=0.5, thrifty=True, parts=4),
        "experts": case(family="qwen3_moe", thrifty=True),
        "straight": case("qat", format="int2-g16-affine", codes=True),
        "stopped": case("qat", format="int2-g16-affine", codes=True, stop=2),
    }


def by_team(cases: Mapping[str, Case], folder: Path) -> list[dict[str, Result]]:
    """What each of two processes has left of each case."""
    folder.mkdir(exist_ok=True)
    torch.save([vars(each) for each in cases.values()], folder / "cases.pt")
    torchrun(SIZE, str(member.__file__), str(folder / "cases.pt"), str(folder))
    left = [torch.load(folder / f"results-{rank}.pt", weights_only=True) for rank in range(SIZE)]
    return [
        {name: Result(**fields) for name, fields in zip(cases, each, strict=True)} for each in left
    ]


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("kind", "sharded"),
    [(shared, False), (shared, True), (weights, True), (ways, True)],
    ids=["shared", "divided", "divided weights", "divided ways"],
)
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path, kind, sharded):
    cases: dict[str, Case] = {
        name: replace(each, settings={**each.settings, "sharded": sharded})
        for name, each in kind().items()
    }
    begun = list(cases).index("begun") if "begun" in cases else None
    if begun is not None:
        asked = iter([False, False, True])
        with pytest.raises(StoppedError):
            member.trained(cases["begun"], tmp_path / f"team/work-{begun}", lambda: next(asked))
    first, second = by_team(cases, tmp_path / "team")
    for name, each in cases.items():
        alone = member.result(replace(each, stop=None), tmp_path / name)
        assert first[name].losses == second[name].losses, name
        assert first[name].losses == pytest.approx(alone.losses, rel=1e-4), name
        assert equal(first[name].tensors, second[name].tensors), name
        assert first[name].tensors.keys() == alone.tensors.keys(), name
        for tensor, value in alone.tensors.items():
            apart = float((first[name].tensors[tensor].float() - value.float()).norm())
            assert apart <= 3e-3 * float(value.float().norm()), (name, tensor)
        held = first[name].held + second[name].held
        assert held == (alone.held if sharded else 2 * alone.held), name
    if "stopped" in cases:
        assert equal(first["stopped"].tensors, first["straight"].tensors)
        assert first["stopped"].losses == first["straight"].losses


def test_a_step_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch):
    assert list(Team(1, 2).share(4)) == [2, 3]
    with pytest.raises(RecipeError, match="3 parts cannot be shared by 2"):
        Team(0, 2).share(3)
    assert Finetune(parts=2).refuses({}) is None
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "4"), ("RANK", "3")):
        monkeypatch.setenv(name, value)
    assert Team.announced() == Team(3, 4)
    assert "a multiple of 4" in (Finetune(parts=2).refuses({}) or "")
    with pytest.raises(RecipeError, match="whet search is one"):
        Team.announced().alone("search")


def test_a_model_that_is_divided_writes_no_text():
    with pytest.raises(ValueError, match="own to 0"):
        Distill(sharded=True, own=0.5)


def test_a_process_that_has_gone_is_told_of_in_plain_words():
    with pytest.raises(StoppedError, match="has ended"), complete():
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), complete():
        raise RuntimeError("shapes differ")
