"""Every family equals transformers: forward, with a cache, and in what it generates."""

import itertools

import pytest
import torch
from tests.unit.model.tiny import CASES, STACKED, reference, source, stacked, tokens
from torch import Tensor

from whet.model.decoder import Model, load
from whet.model.family import families, find
from whet.model.source import InMemory

LENGTH, PROMPT, NEW = 21, 9, 16
GROWING = {
    "llama-dynamic": 12
}  # beyond this length cached keys keep the angles they were made with
SOURCES = [*CASES, *(f"{case}/stacked" for case in STACKED)]


def opened(case: str) -> InMemory:
    name, _, layout = case.partition("/")
    return stacked(name) if layout else source(name)


def worst(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max())


@pytest.fixture(params=SOURCES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_forward_equals_transformers(case: str):
    x = tokens(LENGTH)
    expected = reference(case.partition("/")[0])(x).logits
    assert float(expected.std()) > 0.3  # the comparison means something
    assert worst(load(opened(case))(x), expected) < 1e-4


@torch.no_grad()
def test_cached_decoding_equals_recomputing(case: str):
    length = GROWING.get(case, LENGTH)
    model, x = load(opened(case)), tokens(length)
    whole, cache = model(x), model.new_cache()
    bounds = [0, PROMPT - 3, PROMPT, *range(PROMPT + 1, length + 1)]
    longrope = "longrope" in case  # rows before the last are those of shorter sequences
    for start, stop in itertools.pairwise(bounds):
        part = model(x[:, start:stop], cache)
        expected = model(x[:, :stop])[:, start:] if longrope else whole[:, start:stop]
        assert worst(part, expected) < 1e-4
    assert cache.length == length


@torch.no_grad()
def test_generates_what_transformers_generates(case: str):
    twin, prompt = reference(case.partition("/")[0]), tokens(PROMPT, batch=1, seed=3)
    expected = twin.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )
    assert torch.equal(greedy(load(opened(case)), prompt), expected)


def greedy(model: Model, prompt: Tensor) -> Tensor:
    cache, found, last = model.new_cache(), prompt, prompt
    for _ in range(NEW):
        last = model(last, cache)[:, -1:].argmax(-1)
        found = torch.cat((found, last), 1)
    return found


def test_expected_tensors_are_those_that_files_hold(case: str):
    held = opened(case)
    family = find(held.config)
    arch = family.architecture(held.config, held.names())
    expected = family.tensors(arch)
    found = {name: tuple(tensor.shape) for name, tensor in held.tensors.items()}
    if arch.tied:
        found.pop("lm_head.weight", None)
    if "/stacked" in case:  # names of the model in memory
        found = {name.replace("embed_out", "lm_head"): shape for name, shape in found.items()}
    assert expected == found


@pytest.mark.parametrize("case", CASES)
def test_parts_hold_every_tensor_once(case: str):
    held = source(case)
    names: list[str] = []
    model = load(held)
    for part in (model.embedding, *model.blocks, model.head):
        names += [*part.extras(), *(site.tensor for site in part.sites if site.tied is None)]
    family = find(held.config)
    expected = family.tensors(family.architecture(held.config, held.names()))
    assert sorted(names) == sorted(expected)


@pytest.mark.parametrize("case", STACKED)
@torch.no_grad()
def test_parts_of_stacked_experts_are_called_like_experts_apart(case: str):
    model, apart = load(stacked(case)), load(source(case))
    for one, two in zip(model.blocks, apart.blocks, strict=True):
        assert list(one.extras()) == list(two.extras())
        assert [site.module for site in one.sites] == [site.module for site in two.sites]


def test_every_family_is_tested():
    assert {find(source(case).config).name for case in CASES} == set(families())
