"""Rows of data sets as people have them: each gives text, or one error with file, row and reason."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from whet.base.errors import FolderError
from whet.calibrate.rows import Rows
from whet.calibrate.texts import texts

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]


def chat(messages: Sequence[dict[str, Any]], **values: object) -> str:
    if any(message["role"] == "system" for message in messages):
        raise FolderError("the chat template refuses this conversation: no system", "")
    return "".join(f"[{m['role']}]{m['content']}" for m in messages) + json.dumps(values)


GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "messages": ({"messages": [USER, ANSWER]}, "[user]q[assistant]a{}"),
    "text is null": ({"text": None, "messages": [USER]}, "[user]q{}"),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "[user]q[assistant]a{}",
    ),
    "tools": ({"messages": [USER], "tools": TOOLS}, "[user]q" + json.dumps({"tools": TOOLS})),
    "tools as JSON text": (
        {"messages": [USER], "tools": json.dumps(TOOLS)},
        "[user]q" + json.dumps({"tools": TOOLS}),
    ),
    "no tools": ({"messages": [USER], "tools": []}, '[user]q{"tools": null}'),
    "prompt and completion as messages": (
        {"prompt": [USER], "completion": [ANSWER]},
        "[user]q[assistant]a{}",
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_rows_become_text(case: str) -> None:
    row, expected = GOOD[case]
    assert Rows(chat).text(row, "f, row 1") == expected


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "refused by the template": (
        {"messages": [{"role": "system", "content": "s"}]},
        "f, row 18: the chat template refuses this conversation: no system",
    ),
    "unknown speaker": ({"conversations": [{"from": "x", "value": "q"}]}, "known"),
    "tools are no JSON": ({"messages": [USER], "tools": "{"}, "`tools` is text, but not JSON"),
    "tools are no list": ({"messages": [USER], "tools": {}}, "`tools` must be a list"),
    "text is null": ({"text": None}, "'text' must be text, found null"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_rows_are_named(case: str) -> None:
    row, expected = BAD[case]
    with pytest.raises(FolderError) as caught:
        Rows(chat).text(row, "f, row 18")
    assert caught.value.message.startswith("f, row 18: ")
    assert expected in caught.value.message
    assert caught.value.hint


LINES = '{"text": "one"}\n\n{"text": "two"}\n'
FILES = {
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
    "CRLF": ("a.jsonl", LINES.replace("\n", "\r\n").encode()),
    "array": ("a.json", b'[{"text": "one"},\n {"text": "two"}]'),
    "lines in a .json file": ("a.json", LINES.encode()),
}


@pytest.mark.parametrize("case", FILES)
def test_files_are_read(case: str, tmp_path: Path) -> None:
    name, content = FILES[case]
    (tmp_path / name).write_bytes(content)
    assert list(texts(str(tmp_path / name), Rows(chat), 1 << 20)) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_named_with_what_to_do(
    name: str, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes('{"text": "Grüße"}'.encode(encoding))
    with pytest.raises(FolderError, match="row 1: not UTF-8 text") as caught:
        list(texts(str(tmp_path / name), Rows(chat), 1 << 20))
    assert "iconv -f " in caught.value.hint


def test_conversations_are_rendered_only_as_far_as_they_are_wanted(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{n} " + "x" * 1000}]} for n in range(500)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = [text.split()[0] for text in texts(str(path), Rows(chat), 8 << 20, 20_000)]
    assert 15 <= len(seen) <= 30
    assert seen[0] == "[user]0"
    assert int(seen[-1].removeprefix("[user]")) > 400
