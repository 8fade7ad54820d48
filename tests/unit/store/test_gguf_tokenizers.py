"""Tokenizers of GGUF files: ways of splitting text, pieces, tokens around texts and at their end."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tests.gguf_files import converted
from tokenizers.pre_tokenizers import ByteLevel

from whet.base.errors import FolderError, UnsupportedError
from whet.store.gguf.splits import COMPOSED, GPT2, SPLITS, WHOLE
from whet.store.gguf.tokenizer import tokenizer_files
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

TEXTS = [
    "Once upon a time", " two  spaces", "naïve café — 1234567!", "\n\n\tx",
    "日本語 emoji 🙂", "",
]  # fmt: skip
BYTES = sorted(ByteLevel.alphabet())
SPACE = "\u0120"  # how a byte-level tokenizer writes a space


def made(values: dict[str, Any]) -> dict[str, Any]:
    """The files of a tokenizer that a file describes so."""
    named = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    return tokenizer_files(Path("x.gguf"), named)


def byte_level(pre: str | None, **more: Any) -> dict[str, Any]:
    """A vocabulary of bytes and a few merges."""
    tokens = [*BYTES, "ab", "abc", "<s>", "</s>", "<|im_end|>", "[PAD]", f"{SPACE}{SPACE}"]
    kinds = [1] * (len(BYTES) + 2) + [3, 3, 3, 5, 4]
    found = {"model": "gpt2", "tokens": tokens, "token_type": kinds, "merges": ["a b", "ab c"]}
    found |= {"bos_token_id": len(BYTES) + 2, "eos_token_id": len(BYTES) + 3}
    return found | ({"pre": pre} if pre else {}) | more


def words(pre: str | None, text: str) -> list[str]:
    """How a text is split, its bytes as text again."""
    whole = json.dumps(made(byte_level(pre))["tokenizer.json"])
    split = tokenizers.Tokenizer.from_str(whole).pre_tokenizer.pre_tokenize_str(text)
    return [text[start:stop] for _, (start, stop) in split]


@pytest.mark.parametrize("pre", SPLITS)
def test_every_way_of_splitting_keeps_the_text(pre: str) -> None:
    for text in TEXTS:
        assert "".join(words(pre, text)) == text
        split = tokenizers.Tokenizer.from_str(json.dumps(made(byte_level(pre))["tokenizer.json"]))
        assert split.decode(split.encode(text, add_special_tokens=False).ids) == text


CUTS = {
    "gpt-2": ["I", "'ve", " 1234", " cats", ",", " XmlHttp", "  ", " é"],
    "smollm": ["I", "'ve", " ", "1", "2", "3", "4", " cats", ",", " XmlHttp", "  ", " é"],
    "llama-bpe": ["I", "'ve", " ", "123", "4", " cats", ",", " XmlHttp", "  ", " é"],
    "qwen2": ["I", "'ve", " ", "1", "2", "3", "4", " cats", ",", " XmlHttp", "  ", " é"],
    "tekken": ["I", "'ve", " ", "1", "2", "3", "4", " cats", ",", " Xml", "Http", "  ", " é"],
    "gpt-4o": ["I've", " ", "123", "4", " cats", ",", " Xml", "Http", "  ", " é"],
    "deepseek-v3": ["I", "'ve", " ", "123", "4", " cats", ",", " XmlHttp", "  ", " é"],
    "default": ["I", "'", "ve", " ", "123", "4", " cats", ",", " XmlHttp", "  ", " é"],
}


@pytest.mark.parametrize("pre", CUTS)
def test_ways_of_splitting_cut_where_the_originals_do(pre: str) -> None:
    assert words(pre, "I've 1234 cats, XmlHttp   é") == CUTS[pre]
    assert words(None, "I've 1234 cats, XmlHttp   é") == CUTS["default"]


def test_words_that_are_tokens_need_no_merges() -> None:
    for pre in ("llama-bpe", "gpt-2"):
        whole = made(byte_level(pre, merges=["a b"]))["tokenizer.json"]
        found = tokenizers.Tokenizer.from_str(json.dumps(whole))
        expected = ["abc"] if pre in WHOLE else ["ab", "c"]
        assert found.encode("abc", add_special_tokens=False).tokens == expected


def test_texts_are_composed_first_where_the_original_does_so() -> None:
    for pre in SPLITS:
        normalizer = made(byte_level(pre))["tokenizer.json"]["normalizer"]
        assert normalizer == ({"type": "NFC"} if pre in COMPOSED else None)
    assert GPT2 in SPLITS["gpt-2"]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
@pytest.mark.parametrize("bos", [None, True, False])
@pytest.mark.parametrize("eos", [None, True, False])
def test_tokens_stand_around_texts_as_the_file_says(
    pre: str, bos: bool | None, eos: bool | None
) -> None:
    said = {"add_bos_token": bos, "add_eos_token": eos}
    asked = {name: value for name, value in said.items() if value is not None}
    whole = json.dumps(made(byte_level(pre, **asked))["tokenizer.json"])
    found = tokenizers.Tokenizer.from_str(whole).encode("ab").tokens
    first = ["<s>"] if (pre in WHOLE if bos is None else bos) else []
    assert found == [*first, "ab", *(["</s>"] if eos else [])]


def test_all_tokens_that_end_a_text_are_found() -> None:
    found = made(byte_level("gpt-2"))["generation_config.json"]
    first = len(BYTES) + 2
    assert found == {"bos_token_id": first, "eos_token_id": [first + 1, first + 2]}
    more = made(byte_level("gpt-2", eot_token_id=0, eom_token_id=1))["generation_config.json"]
    assert more["eos_token_id"] == [0, 1, first + 1, first + 2]


def test_tokens_of_the_user_match_as_they_are() -> None:
    values = byte_level("gpt-2")
    values["tokens"][-1] = "  "  # spaces, as converters write them
    whole = json.dumps(made(values)["tokenizer.json"])
    found = tokenizers.Tokenizer.from_str(whole).encode("ab  ab").tokens
    assert found == ["ab", "  ", "ab"]


def test_vocabularies_that_contradict_themselves_are_refused() -> None:
    good = byte_level("gpt-2")
    for wrong in (
        {"tokens": ["a", "a"], "token_type": [1, 1]},
        {"token_type": [1]},
        {"merges": ["a q"]},
        {"merges": ["a"]},
        {"bos_token_id": 10**6, "add_bos_token": True},
        {"model": "llama"},
    ):
        with pytest.raises(FolderError, match=r"x\.gguf"):
            made(good | wrong)


def test_unknown_kinds_of_tokenizers_are_named() -> None:
    for values in ({"model": "t5"}, {"model": "gpt2", "pre": "odd"}):
        with pytest.raises(UnsupportedError, match=r"t5|odd"):
            made({"tokens": ["a"]} | values)


def test_empty_tokens_get_a_name() -> None:
    values = byte_level("gpt-2")
    values["tokens"][-2] = ""
    vocabulary = made(values)["tokenizer.json"]["model"]["vocab"]
    assert len(vocabulary) == len(values["tokens"])


@pytest.mark.parametrize("source", [demo()])
def test_tokens_are_those_of_the_original(source: Path, tmp_path: Path) -> None:
    file = converted(source, tmp_path / "x.gguf")
    ours, theirs = Tokenizer(file), Tokenizer(source)
    assert (ours.bos_id, ours.adds_bos) == (theirs.bos_id, theirs.adds_bos)
    assert set(theirs.eos_ids) <= set(ours.eos_ids)
    for text in TEXTS:
        ids = theirs.encode(text, special=True)
        assert ours.encode(text, special=True) == ids
        assert ours.decode(ids) == theirs.decode(ids)


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += ["▁t", "he", "▁the", "▁", "t", "h", "e", "a", "▁a", "at", "c", "▁c", "▁cat"]


@pytest.mark.parametrize("spaced", [None, False])
def test_pieces_with_scores_are_joined_the_likeliest_first(spaced: bool | None) -> None:
    values = {
        "model": "llama", "tokens": PIECES, "scores": [-float(i) for i in range(len(PIECES))],
        "token_type": [2, 3, 3, *[6] * 256, *[1] * 13], "bos_token_id": 1, "eos_token_id": 2,
        "unknown_token_id": 0,
    }  # fmt: skip
    whole = made(values if spaced is None else values | {"add_space_prefix": spaced})
    found = tokenizers.Tokenizer.from_str(json.dumps(whole["tokenizer.json"])).encode("the cat é")
    begin = ["▁the"] if spaced is None else ["t", "he"]
    assert found.tokens == ["<s>", *begin, "▁cat", "▁", "<0xC3>", "<0xA9>"]
