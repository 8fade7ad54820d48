from pathlib import Path

import numpy as np
import pytest

from whet.base.errors import FolderError, NumericalError, RecipeError, UnsupportedError
from whet.runtime import choice, reference
from whet.runtime.engine import CHARACTERS, Engine, load
from whet.runtime.sample import Sampling
from whet.store.folder import Folder
from whet.store.resolve import demo

PROMPT = "It was a dark night, and the"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load("demo")


def copied(to: Path, *names: str) -> Path:
    for name in names:
        (to / name).write_bytes((demo() / name).read_bytes())
    return to


def test_logits_depend_neither_on_mapping_nor_on_unpacking() -> None:
    tokens = np.arange(20).reshape(2, 10)
    expected = load("demo", "reference").logits(tokens)
    for options in ({"mapped": False}, {"unpacked": True}):
        engine = Engine(demo(), reference.load(Folder(demo()), **options))
        assert (engine.logits(tokens) == expected).all()


def test_a_list_is_a_batch_of_one(engine: Engine) -> None:
    tokens = np.arange(20).reshape(2, 10)
    expected = engine.logits(tokens)
    assert expected.shape == (2, 10, engine.vocab)
    assert expected.dtype == np.float32
    assert (engine.logits(list(range(10))) == expected[:1]).all()


def test_logits_do_not_depend_on_how_a_sequence_is_cut(engine: Engine) -> None:
    ids = np.arange(50)
    whole = engine.logits(ids)[0]
    for size in (1, 7, 49):
        pieces = np.concatenate(list(engine.pieces(ids, size)))
        assert np.allclose(pieces, whole, atol=1e-3)


def test_a_fall_to_the_reference_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "missing", lambda: "no compiler was here")
    engine = load("demo")
    assert engine.executor.name == "reference"
    assert engine.fallback == ("no compiler was here",)
    assert load("demo", "reference").fallback == ()
    for asked in ({"executor": "native"}, {"kernels": "require"}):
        with pytest.raises(UnsupportedError, match="no compiler was here"):
            load("demo", **asked)
    with pytest.raises(RecipeError, match="no kernels"):
        load("demo", "reference", "require")


def test_without_torch_and_kernels_the_command_that_helps_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "missing", lambda: "no compiler was here")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="no compiler was here, and torch") as caught:
        load("demo")
    assert caught.value.hint == 'pip install "whet[compress]"'


def test_weights_are_decoded_at_load_only_where_memory_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = 4 * 7_340_032
    for free, expected in ((2 * taken, True), (2 * taken - 2, False)):
        monkeypatch.setattr(reference, "free_memory", lambda free=free: free)
        found = reference.load(Folder(demo()), unpacked=None)
        assert found.unpacked is expected
        assert ("load" in found.notes["weights"]) is expected


def test_the_cache_gives_the_tokens_of_the_whole_sequence(engine: Engine) -> None:
    ids = engine.encode(PROMPT)
    for token in engine.generate(ids, max_tokens=8):
        assert token == int(engine.logits(ids)[0, -1].argmax())
        ids = [*ids, token]


def test_sampling_is_repeatable_by_seed(engine: Engine) -> None:
    def sampled(seed: int) -> str:
        return engine.generate_text(PROMPT, Sampling(1.0, seed=seed), 12)

    assert sampled(1) == sampled(1) != sampled(2)


def test_generation_ends_at_a_stop_id_which_is_not_yielded(engine: Engine) -> None:
    ids = engine.encode(PROMPT)
    straight = list(engine.generate(ids, max_tokens=6, stop_ids=()))
    assert list(engine.generate(ids, max_tokens=6, stop_ids=[straight[3]])) == straight[:3]


def test_generation_ends_where_the_context_is_full(engine: Engine) -> None:
    ids = engine.encode(PROMPT)
    long = (ids * engine.context)[: engine.context - 3]
    reply = engine.stream(long, Sampling(), 50)
    reply.read()
    assert len(reply.ids) == 3
    assert reply.finish == "context"


def test_the_reply_says_why_it_ended(engine: Engine) -> None:
    assert finish(engine, 5) == (5, "length")
    text = engine.generate_text(PROMPT, Sampling(), 12)
    reply = engine.stream(PROMPT, Sampling(), 12, stop=[text[10:14]])
    assert reply.read() == text[:10]
    assert reply.finish == "stop"


def finish(engine: Engine, limit: int) -> tuple[int, str | None]:
    reply = engine.stream(PROMPT, Sampling(), limit)
    assert reply.finish is None
    reply.read()
    return len(reply.ids), reply.finish


def test_text_is_the_decoded_tokens(engine: Engine) -> None:
    reply = engine.stream(PROMPT, Sampling(), 30)
    assert "".join(reply) == reply.text
    assert PROMPT + reply.text == engine.tokenizer.decode(engine.encode(PROMPT) + reply.ids)


@pytest.mark.parametrize("ids", [[], [-1], [4096]])
def test_impossible_prompts_are_refused_before_work(engine: Engine, ids: list[int]) -> None:
    with pytest.raises((FolderError, RecipeError), match="token"):
        engine.generate(ids)


@pytest.mark.parametrize("length", [1024, 5000])
def test_prompts_longer_than_the_context_are_refused(engine: Engine, length: int) -> None:
    with pytest.raises(RecipeError, match=f"{length} tokens are too many: demo holds 1024"):
        engine.generate([5] * length)


def test_a_window_may_be_as_long_as_the_context_but_no_longer(engine: Engine) -> None:
    assert engine.logits(np.zeros(1024, np.int64)).shape == (1, 1024, engine.vocab)
    with pytest.raises(RecipeError, match="1025"):
        engine.logits(np.zeros(1025, np.int64))


def test_a_text_too_long_to_be_a_prompt_is_refused_unread(engine: Engine) -> None:
    with pytest.raises(RecipeError, match="characters"):
        engine.stream("a" * (CHARACTERS * engine.context + 1))


def test_an_empty_prompt_begins_with_the_token_of_the_beginning(engine: Engine) -> None:
    assert engine.encode("") == [engine.tokenizer.bos_id]


def test_sampling_is_what_the_model_recommends_unless_given(engine: Engine) -> None:
    assert engine.recommended == Sampling(0.8, 50, 0.95)


def test_a_folder_without_generation_settings_is_greedy(tmp_path: Path) -> None:
    bare = load(copied(tmp_path, "config.json", "model.safetensors"))
    assert bare.recommended == Sampling()


def test_damaged_generation_settings_are_named(tmp_path: Path) -> None:
    copied(tmp_path, "config.json", "model.safetensors")
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "top_p": "high"}')
    with pytest.raises(FolderError, match="top_p = 'high'"):
        load(tmp_path).recommended  # noqa: B018


def test_a_model_without_a_chat_template_says_so(engine: Engine) -> None:
    with pytest.raises(UnsupportedError, match="chat template"):
        engine.chat([{"role": "user", "content": "Hello"}])


def test_a_model_with_nan_weights_is_named_as_the_fault(tmp_path: Path) -> None:
    executor = reference.load(Folder(demo()), mapped=False)
    norm = executor.model.head.norm
    assert norm is not None
    assert norm.weight is not None
    norm.weight[0] = np.nan
    broken = Engine(demo(), executor)
    with pytest.raises(NumericalError, match="not finite"):
        broken.generate_text(PROMPT)
