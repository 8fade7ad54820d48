"""Tokenizers: as transformers has them, and streams that never show half a character."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from whet.base.errors import FolderError, UnsupportedError
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = [
    "Once upon a time",
    "  two  spaces ",
    "naïve café — “quoted” 🎉🎉 日本語 \n\n\ttab",
    "",
    "a" * 300,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(demo())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        shutil.copy(demo() / name, tmp_path)
    return tmp_path


def setting(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_equals_transformers(tokenizer: Tokenizer):
    other = AutoTokenizer.from_pretrained(demo())
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == other.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text, special=True) == other.encode(text)
        assert tokenizer.decode(ids) == other.decode(ids)
    assert tokenizer.vocab_size == len(other)
    assert tokenizer.bos_id == other.bos_token_id
    assert tokenizer.eos_ids == (other.eos_token_id,)


def test_special_tokens(tokenizer: Tokenizer):
    ids = [0, *tokenizer.encode("word"), 0]
    assert tokenizer.decode(ids) == "word"
    assert tokenizer.decode(ids, special=True) == "<|endoftext|>word<|endoftext|>"
    assert tokenizer.token(0) == "<|endoftext|>"
    assert tokenizer.token(10**6) == "1000000"
    assert not tokenizer.adds_bos


def test_end_of_text_is_gathered_from_everywhere(folder: Path):
    setting(folder, "generation_config.json", eos_token_id=[7, 5])
    setting(folder, "config.json", eos_token_id=9)
    assert Tokenizer(folder).eos_ids == (0, 5, 7, 9)
    setting(folder, "tokenizer_config.json", eos_token={"content": "the", "special": True})
    found = Tokenizer(folder)
    assert found.special_tokens["eos_token"] == "the"
    assert 0 not in found.eos_ids
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    assert Tokenizer(folder).eos_ids == (9,)


def test_truncation_and_padding_of_the_file_are_switched_off(folder: Path):
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_truncation(3)
    own.enable_padding(length=10)
    own.save(str(folder / "tokenizer.json"))
    assert Tokenizer(folder).encode(TEXTS[2]) == Tokenizer(demo()).encode(TEXTS[2])


def streamed(tokenizer: Tokenizer, ids: Sequence[int], after: Sequence[int] = ()) -> list[str]:
    stream = tokenizer.stream(after)
    return [*(stream.push(index) for index in ids), stream.finish()]


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_stream_joins_to_the_text(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_stream_waits_for_whole_characters(tokenizer: Tokenizer):
    ids = tokenizer.encode("🎉")
    assert len(ids) == 4
    assert streamed(tokenizer, ids) == ["", "", "", "🎉", ""]
    assert streamed(tokenizer, ids[:2]) == ["", "", "\ufffd"]


def test_stream_does_not_wait_for_ever(tokenizer: Tokenizer):
    broken = tokenizer.encode("🎉")[:1] * 100
    pieces = streamed(tokenizer, broken)
    assert "".join(pieces) == tokenizer.decode(broken)
    assert sum(bool(piece) for piece in pieces) > 4


@given(ids=st.lists(st.integers(0, 4095), max_size=30))
@settings(max_examples=60, deadline=None)
def test_stream_of_any_ids_is_their_text(tokenizer: Tokenizer, ids: list[int]):
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def spaced(folder: Path) -> Tokenizer:
    """A tokenizer that, like those of SentencePiece, drops the space at the start of a text."""
    vocab = {
        piece: i
        for i, piece in enumerate(["<unk>", "▁Hello", "▁world", "▁", "!", "<0xC3>", "<0xA9>"])
    }
    own = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    own.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    own.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def test_stream_keeps_spaces_between_words(tmp_path: Path):
    tokenizer = spaced(tmp_path)
    assert streamed(tokenizer, [1, 2, 4, 2]) == ["Hello", " world", "!", " world", ""]
    assert streamed(tokenizer, [2, 4], after=[1]) == [" world", "!", ""]
    assert streamed(tokenizer, [1, 5, 6, 2]) == ["Hello", "", "é", " world", ""]


def test_chat(folder: Path):
    setting(folder, "tokenizer_config.json", chat_template=CHAT)
    tokenizer = Tokenizer(folder)
    messages = [{"role": "user", "content": "Hi <there>"}]
    other = AutoTokenizer.from_pretrained(folder)
    expected = other.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.chat(messages) == expected == "<user>Hi <there><|endoftext|>\n<assistant>"
    assert tokenizer.chat(messages, generate=False) == "<user>Hi <there><|endoftext|>\n"
    assert tokenizer.chat_ids(messages) == other.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )


def test_chat_template_of_its_own_file_and_of_a_list(folder: Path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "list"}]
    setting(folder, "tokenizer_config.json", chat_template=named)
    assert Tokenizer(folder).chat([]) == "list"
    (folder / "chat_template.jinja").write_text("file")
    assert Tokenizer(folder).chat([]) == "file"


def test_no_chat_template(tokenizer: Tokenizer):
    with pytest.raises(UnsupportedError, match="no chat template"):
        tokenizer.chat([{"role": "user", "content": "Hi"}])


def test_missing_and_damaged_files(folder: Path):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(FolderError, match="not a tokenizer"):
        Tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedError, match=r"tokenizer\.json"):
        Tokenizer(folder)
