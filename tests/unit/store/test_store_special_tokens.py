"""Special tokens: resolved from a folder's files as transformers resolves them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

PLAIN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
BOS, EOS = {"content": "ween", **PLAIN}, "here"
START = {"content": "<|im_start|>", "special": True, **PLAIN}
CASES: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "only in the map": {"special_tokens_map": {"bos_token": BOS, "eos_token": EOS}},
    "the map wins": {
        "special_tokens_map": {"bos_token": BOS, "eos_token": EOS},
        "tokenizer_config": {"bos_token": "ations"},
    },
    "the map is not read beside a decoder": {
        "special_tokens_map": {"bos_token": BOS},
        "tokenizer_config": {
            "added_tokens_decoder": {"4096": START},
            "eos_token": {"__type": "AddedToken", "content": "<|im_start|>"},
        },
    },
    "added tokens": {"added_tokens": {"<|im_start|>": 4096, "<|im_end|>": 4097}},
}


@pytest.mark.parametrize("case", CASES)
def test_as_transformers(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo(), folder)
    kept = json.loads((folder / "tokenizer_config.json").read_text())
    base = {
        k: v for k, v in kept.items() if not k.endswith("_token") and k != "added_tokens_decoder"
    }
    files = {"tokenizer_config": {}, **CASES[case]}
    files["tokenizer_config"] = {**base, "chat_template": TEMPLATE, **files["tokenizer_config"]}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    theirs, mine = AutoTokenizer.from_pretrained(folder), Tokenizer(folder)
    messages = [{"role": "user", "content": "a time <|im_start|>"}]
    text = theirs.apply_chat_template(messages, tokenize=False)
    assert mine.chat(messages, generate=False) == text
    assert mine.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert mine.decode(mine.encode(text)) == theirs.decode(
        mine.encode(text), skip_special_tokens=True
    )
    named = {k: v for k, v in theirs.special_tokens_map.items() if isinstance(v, str)}
    assert dict(mine.special_tokens) == named
    assert theirs.eos_token_id is None or theirs.eos_token_id in mine.eos_ids
