"""Guesses change nothing but the time: tokens are those of the large model alone, seed for seed."""

import json
from pathlib import Path

import numpy as np
import pytest

from whet.base.errors import FolderError, UnsupportedError
from whet.kernels.native import missing
from whet.runtime.engine import load
from whet.runtime.executor import Executor
from whet.runtime.sample import Sampler, Sampling
from whet.runtime.speculate import MOST, Speculation
from whet.store.folder import Folder

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

from tests.native_folders import native, tiny

from whet.store.resolve import demo

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
SAMPLINGS = {
    "greedy": Sampling(),
    "drawn": Sampling(temperature=1.0, seed=3),
    "filtered": Sampling(temperature=0.7, top_k=9, top_p=0.9, repetition_penalty=1.2, seed=4),
}


def alone(model: Executor, sampling: Sampling, count: int) -> list[int]:
    """Generate token by token."""
    cache, history, fresh = model.new_cache(), list(PROMPT), list(PROMPT)
    sampler = Sampler(sampling)
    for _ in range(count):
        row = model.step(np.asarray(fresh, np.int64), cache)[-1]
        fresh = [sampler.next(row, history)]
        history += fresh
    return history[len(PROMPT) :]


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("case", ["llama", "mistral", "gemma2", "mixtral"])
def test_tokens_are_those_of_the_model_alone(
    case: str, kind: str, sampling: Sampling, tmp_path: Path
):
    model = native(tiny(tmp_path / "model", case), cache=kind)
    draft = native(tiny(tmp_path / "draft", case, {"": "int4-g16"}))
    both = Speculation(model, draft)
    found = list(both.tokens(list(PROMPT), Sampler(sampling), 40))
    assert found == alone(model, sampling, 40)
    assert both.tally.steps > 0
    assert 0 <= both.tally.accepted <= both.tally.guessed <= MOST * both.tally.steps


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_a_model_guesses_rightly_for_itself(sampling: Sampling, tmp_path: Path):
    model = native(tiny(tmp_path / "model", "llama"))
    both = Speculation(model, model)
    found = list(both.tokens(list(PROMPT), Sampler(sampling), 40))
    assert found == alone(model, sampling, 40)
    assert both.tally.accepted == both.tally.guessed
    assert both.tally.steps < 10


def test_a_draft_with_a_short_context_guesses_as_long_as_it_can(tmp_path: Path):
    model = native(tiny(tmp_path / "model", "llama"))
    small = tiny(tmp_path / "draft", "llama").path
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    both = Speculation(model, native(Folder(small)))
    assert list(both.tokens(list(PROMPT), Sampler(Sampling()), 40)) == alone(model, Sampling(), 40)
    assert both.tally.guessed <= 20


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_an_engine_with_a_draft_says_the_same(executor, tmp_path: Path):
    plain, guided = load("demo", executor), load("demo", executor, draft="demo")
    for sampling in SAMPLINGS.values():
        texts = [one.generate_text("Once upon", sampling, 30) for one in (plain, guided)]
        assert texts[0] == texts[1]
    assert guided.guessed.tokens_a_step > 3
    assert plain.guessed.tokens_a_step == 1


def test_what_cannot_guess_is_refused(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="kv4 are coded page by page"):
        load("demo", cache="kv4", draft="demo")
    with pytest.raises(UnsupportedError, match="page by page"):
        load("demo", "reference", cache="kv2", draft="demo")
    for file in demo().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    words = raw["model"]["vocab"]
    one, two = sorted(words, key=words.get)[-2:]
    words[one], words[two] = words[two], words[one]
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(FolderError, match="do not go together: they have different tokens"):
        load("demo", draft=tmp_path)
