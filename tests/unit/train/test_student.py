"""Students: smaller configurations, and weights cut from the source or fresh."""

from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny import CASES, source
from tests.unit.train.models import task, text

from whet.methods.distill.student import Student, taken
from whet.model.decoder import load
from whet.model.family import find
from whet.model.source import InMemory

PLAIN = [case for case in CASES if "moe" not in case and "mixtral" not in case]


def made(use: Student, original: InMemory, work: Path) -> InMemory:
    assert use.refuses(original.config) is None
    config = use.config(original.config)
    tensors = dict(original.tensors) | dict(use.run(task(work, original)).tensors)
    family = find(config)
    wanted = family.tensors(family.architecture(config, original.names()))
    kept = {name: tensors[name] for name in wanted}
    assert {name: tuple(x.shape) for name, x in kept.items()} == wanted
    return InMemory(config, kept)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_first_of_the_layers_is_what_it_was(tmp_path: Path, case):
    original = source(case)
    student = load(made(Student(layers=1), original, tmp_path))
    assert len(student.blocks) == 1
    x = torch.randn(2, 5, 32)
    assert torch.equal(student.blocks[0](x), load(original).blocks[0](x))


@pytest.mark.parametrize("case", PLAIN)
@torch.no_grad()
def test_channels_that_do_nothing_can_be_cut(tmp_path: Path, case):
    original = source(case)
    family = find(original.config)
    arch = family.architecture(original.config, original.names())
    tensors = dict(original.tensors)
    for layer in range(arch.layers):
        for site in family.block_sites(arch, layer):
            if site.inp == "ffn":
                tensors[site.tensor] = tensors[site.tensor].clone()
                site.oriented(tensors[site.tensor])[:, ::3] = 0.0
    quiet = InMemory(original.config, tensors)
    student = made(Student(ffn=arch.ffn - len(range(0, arch.ffn, 3))), quiet, tmp_path)
    ids = text(2, 9)
    assert torch.allclose(load(student)(ids), load(quiet)(ids), atol=1e-5)


@pytest.mark.parametrize("case", ["llama", "gpt2", "gemma2", "opt", "phi3", "qwen3_moe"])
def test_fresh_students_are_small_of_their_family_and_follow_the_seed(tmp_path: Path, case):
    original, use = source(case), Student(layers=1, hidden=16, weights="fresh")
    if "head_dim" not in original.config:
        use = Student(layers=1, hidden=16, heads=2, weights="fresh")
    if "num_key_value_heads" in original.config and use.heads:
        use = Student(layers=1, hidden=16, heads=2, kv_heads=1, weights="fresh")
    one, again = (made(use, original, tmp_path) for _ in range(2))
    assert all(torch.equal(one.tensors[name], again.tensors[name]) for name in one.tensors)
    with torch.no_grad():
        assert load(one)(text(1, 5)).std() < 2


def test_layers_are_taken_evenly():
    assert taken(8, 4).tolist() == [0, 2, 5, 7]
    assert taken(8, 8).tolist() == list(range(8))


def test_what_cannot_be_had_is_refused():
    config = source("llama").config
    assert Student(layers=9).refuses(config) is not None
    assert Student(heads=3, kv_heads=2, weights="fresh").refuses(config) is not None
    with pytest.raises(ValueError, match="fresh"):
        Student(hidden=16)
