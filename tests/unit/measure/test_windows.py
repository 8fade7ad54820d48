import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whet.base.errors import FolderError, MissingError
from whet.measure.windows import windows


class Bytes:
    """A token for each byte; 255 begins a text, where that is expected."""

    def __init__(self, *, adds_bos: bool = False) -> None:
        self.adds_bos = adds_bos

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [255] * (special and self.adds_bos) + list(text.encode("latin-1"))

    def chat(self, messages: Sequence[Mapping[str, Any]], *, generate: bool = True) -> str:
        answer = "<assistant>" if generate else ""
        return "\xff" + "".join(f"<{m['role']}>{m['content']}" for m in messages) + answer


class Utf8(Bytes):
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(text.encode())


def text(path: Path, length: int) -> str:
    path.write_text("".join(chr(32 + i % 90) for i in range(length)))
    return str(path)


def rows(path: Path, *documents: str) -> str:
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    return str(path)


def test_windows_are_consecutive_and_apart(tmp_path: Path) -> None:
    source = text(tmp_path / "a.txt", 1005)
    found = windows(source, Bytes(), 1000, 100)
    assert np.concatenate(found.rows).tolist() == list(Path(source).read_bytes()[:1000])
    assert found.tokens == 1000
    assert found.name == "a.txt"


def test_fewer_windows_are_spread_over_the_whole_source(tmp_path: Path) -> None:
    source = text(tmp_path / "a.txt", 1000)
    found = windows(source, Bytes(), 3, 100)
    whole = windows(source, Bytes(), 99, 100)
    assert [one.tolist() for one in found.rows] == [whole.rows[i].tolist() for i in (0, 4, 9)]


def test_a_long_text_counts_as_stretches_that_are_documents(tmp_path: Path) -> None:
    found = windows(text(tmp_path / "a.txt", 6400), Bytes(), 64, 100)
    assert list(found.documents) == [i // 4 for i in range(64)]


def test_a_window_never_spans_two_documents(tmp_path: Path) -> None:
    source = rows(tmp_path / "a.jsonl", "a" * 250, "b" * 50, "c" * 5, "d" * 100)
    found = windows(source, Bytes(), 99, 100)
    assert [bytes(one.tolist()).decode() for one in found.rows] == [
        "a" * 100, "a" * 100, "b" * 50, "d" * 100,
    ]  # fmt: skip
    assert found.documents == (0, 1, 2, 3)


def test_each_window_starts_with_the_token_of_the_beginning_where_there_is_one(
    tmp_path: Path,
) -> None:
    source = text(tmp_path / "a.txt", 1000)
    found = windows(source, Bytes(adds_bos=True), 99, 100)
    assert all(len(row) == 100 and row[0] == 255 for row in found.rows)
    body = np.concatenate([row[1:] for row in found.rows]).tolist()
    assert body == list(Path(source).read_bytes()[:990])


def test_a_conversation_has_no_open_answer_and_begins_once(tmp_path: Path) -> None:
    message = {"role": "user", "content": "x" * 20}
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [message]}))
    found = windows(str(tmp_path / "a.jsonl"), Bytes(adds_bos=True), 9, 100)
    assert bytes(found.rows[0].tolist()) == b"\xff<user>" + b"x" * 20


def test_the_digest_tells_windows_apart(tmp_path: Path) -> None:
    source = text(tmp_path / "a.txt", 1000)
    digests = {windows(source, Bytes(), 9, n).digest for n in (50, 60)}
    assert len(digests) == 2
    assert windows(source, Bytes(), 9, 50).digest in digests


def test_the_builtin_text_is_not_the_one_to_calibrate_on() -> None:
    found = windows("builtin", Utf8(), 2, 100)
    assert bytes(found.rows[0].tolist()).startswith(b"The Time Traveller")
    assert "Time Machine" in found.name


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="5 tokens"):
        windows(text(tmp_path / "a.txt", 5), Bytes())
    with pytest.raises(MissingError):
        windows(str(tmp_path / "b.txt"), Bytes())
