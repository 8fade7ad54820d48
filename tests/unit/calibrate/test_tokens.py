import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

from whet.base.errors import FolderError, MissingError, RecipeError, UnsupportedError, WhetError
from whet.calibrate import texts as module
from whet.calibrate.rows import Rows
from whet.calibrate.texts import texts
from whet.calibrate.tokens import Reader, calibration


class Bytes:
    """A token for each byte."""

    adds_bos = False

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [1] * (special and self.adds_bos) + list(text.encode())

    def chat(self, messages: Sequence[Mapping[str, str]], *, generate: bool = False) -> str:
        answer = "<assistant>" if generate else ""
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + answer


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(source: str, budget: int = 1 << 30) -> list[str]:
    return list(texts(source, Rows(Bytes().chat), budget))


def test_windows_are_spread_evenly_and_repeatable(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(32 + i % 90) for i in range(1000)))
    tokens = calibration(str(path), Bytes(), 5, 10, seed=3)
    assert tokens.ids.shape == (5, 10)
    again = calibration(str(path), Bytes(), 5, 10, seed=3)
    assert again.digest == tokens.digest
    assert calibration(str(path), Bytes(), 4, 10, seed=3).digest != tokens.digest
    stream = torch.tensor(list(path.read_bytes()))
    assert torch.equal(tokens.ids[0], stream[:10])
    assert torch.equal(tokens.ids[-1], stream[-10:])


def test_another_seed_shifts_the_windows_but_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(32 + i % 90) for i in range(109)))
    made = [calibration(str(path), Bytes(), 10, 10, seed) for seed in range(8)]
    assert all(tokens.ids.shape == (10, 10) for tokens in made)
    assert len({tokens.digest for tokens in made}) > 1


def test_too_little_text_gives_fewer_windows_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 35)
    tokens = calibration(str(path), Bytes(), 128, 10)
    assert tokens.ids.shape == (3, 10)
    assert (tokens.asked, tokens.available) == (128, 35)
    assert "asked for 128" in tokens.description


@pytest.mark.parametrize("text", ["", "x", "123456789"])
def test_less_than_a_window_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(FolderError, match=f"{len(text)} tokens found, at least 10 needed"):
        calibration(str(path), Bytes(), 1, 10)


def test_windows_begin_as_the_model_expects(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcdefgh" * 9)
    tokenizer = Bytes()
    tokenizer.adds_bos = True
    tokens = calibration(str(path), tokenizer, 100, 9)
    assert tokens.ids.shape == (9, 9)
    assert (tokens.ids[:, 0] == 1).all()
    assert bytes(tokens.ids[:, 1:].flatten().tolist()).decode() == "abcdefgh" * 9


def test_conversations_are_read_whole(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", {"messages": [{"role": "user", "content": "x" * 20}]})
    tokens = calibration(source, Bytes(), 1, 26)
    assert bytes(tokens.ids[0].tolist()).decode() == "<user>" + "x" * 20


def test_the_document_of_each_window_is_known(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", *({"text": c * 20} for c in "abc"), {"text": ""})
    tokens = calibration(source, Bytes(), 6, 10)
    assert tokens.documents.tolist() == [0, 0, 1, 1, 2, 2]


def test_rows_of_every_kind_become_text(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    source = written(
        tmp_path / "a.jsonl",
        {"text": "plain", "n": 1},
        {"messages": messages},
        {"prompt": "2+2=", "completion": "4"},
    )
    assert read(source) == ["plain", "<user>hi<assistant>yes", "2+2=4"]


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second", encoding="utf-8-sig")
    written(tmp_path / "a.jsonl", {"text": "first"})
    (tmp_path / "sub" / "c.txt").write_text("third")
    (tmp_path / "notes.md").write_text("not read")
    assert read(str(tmp_path)) == ["first", "second", "third"]


WRONG_ROWS = {
    "bad json": (b'{"text": "a"}\n{"text": \n', "row 2: not JSON"),
    "not an object": (b"[1]\n", "row 1: a JSON object was expected, found list"),
    "no column": (b'\n{"body": "a"}\n', "row 2: expected `text`, .*; found columns: body"),
    "not text": (b'{"text": 3}\n', "row 1: 'text' must be text, found int"),
    "null": (b'{"text": null}\n', "found null"),
    "messages": (b'{"messages": "hi"}\n', "row 1: `messages` must be a list"),
    "no messages": (b'{"messages": []}\n', "row 1: `messages` must be a list"),
    "utf-8": (b'{"text": "a"}\n{"text": "\xff"}\n', "row 2: not UTF-8"),
    "deep": (b"[" * 200_000 + b"\n", "row 1: nested too deeply"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_is_named(tmp_path: Path, name: str) -> None:
    data, message = WRONG_ROWS[name]
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(FolderError, match=message) as caught:
        read(str(path))
    assert caught.value.code == 65
    assert str(path) in caught.value.message


def test_text_that_is_not_utf8_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nthr\xffee")
    with pytest.raises(FolderError, match="row 3: not UTF-8"):
        read(str(path))


def test_a_row_has_a_longest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "a.jsonl", {"text": "x" * 100})
    monkeypatch.setattr(module, "LONGEST_ROW", 50)
    with pytest.raises(FolderError, match="row 1: longer than"):
        read(source)


def test_a_long_row_is_read(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", {"text": "x" * (10 << 20)})
    assert len(read(source)[0]) == 10 << 20


def test_a_folder_of_short_files_is_thinned_as_a_whole(tmp_path: Path) -> None:
    for i in range(100):
        written(tmp_path / f"{i:03d}.jsonl", {"text": f"{i:03d}" * 10})
    some = [int(text[:3]) for text in read(str(tmp_path), 1000)]
    assert 10 < len(some) < 40
    assert some[0] == 0
    assert max(some) > 90


def test_more_text_than_needed_is_thinned_evenly(tmp_path: Path) -> None:
    rows = written(tmp_path / "a.jsonl", *({"text": f"{i:06d}"} for i in range(1000)))
    some = [int(text) for text in read(rows, 4000)]
    assert 100 < len(some) < 500
    assert max(some) > 990
    path = tmp_path / "b.txt"
    path.write_text("".join(f"{i:06d}" for i in range(1000)))
    pieces = read(str(path), 1000)
    assert 500 < sum(map(len, pieces)) <= 1100
    assert pieces[-1][:6] > "000980"


def test_pieces_of_a_long_text_are_cut_between_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\ufeff" + "\u4e2d\u6587\u00e9a" * 900, encoding="utf-8")
    pieces = read(str(path), 700)
    assert len(pieces) > 10
    assert all(set(piece) <= set("\ufeff\u4e2d\u6587\u00e9a") for piece in pieces)
    path.write_bytes(b"half: \xe4\xb8")
    with pytest.raises(FolderError, match="row 1: not UTF-8"):
        read(str(path))
    path.write_bytes(b"\xc3\xa9\xff" * 900)
    with pytest.raises(FolderError, match=r"byte \d+: not UTF-8|row 1: not UTF-8"):
        read(str(path), 700)


@pytest.mark.parametrize(
    ("source", "error"),
    [("missing.txt", MissingError), ("data.csv", RecipeError), ("empty", FolderError)],
)
def test_a_wrong_source_is_refused(tmp_path: Path, source: str, error: type[WhetError]) -> None:
    (tmp_path / "data.csv").write_text("a,b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error):
        read(str(tmp_path / source))


class Hub(ModuleType):
    """Stands in for the `datasets` package."""

    def __init__(self) -> None:
        super().__init__("datasets")
        self.asked: tuple[object, ...] = ()

    def load_dataset(self, name: str, config: str | None, **how: object) -> Iterator[object]:
        self.asked = (name, config, how)
        if name == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist\nmore")
        return ({"text": f"row {i}", "body": f"body {i}"} for i in range(10))


@pytest.mark.parametrize(
    ("source", "place", "first"),
    [
        ("hf:org/name", ("org/name", None, "train"), "row 0"),
        ("hf:org/name/cfg:validation#body", ("org/name", "cfg", "validation"), "body 0"),
    ],
)
def test_hub_datasets_are_streamed(
    monkeypatch: pytest.MonkeyPatch, source: str, place: tuple[object, ...], first: str
) -> None:
    hub = Hub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    found = read(source, 20)
    assert found[0] == first
    assert 3 <= len(found) <= 5
    name, config, split = place
    assert hub.asked == (name, config, {"split": split, "streaming": True})


def test_hub_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", Hub())
    with pytest.raises(MissingError, match=r"doesn't exist$"):
        read("hf:no/such")
    with pytest.raises(FolderError, match="row 1: no column 'words'; found: body, text"):
        read("hf:org/name#words")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UnsupportedError) as caught:
        read("hf:org/name")
    assert caught.value.hint == 'pip install "whet[data]"'


def test_a_reader_gives_the_same_windows_and_begins_again_where_text_ends(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("some words and more of them, " * 3)
    reader = Reader(str(path), Bytes(), 0)
    once = reader(2, 8)
    assert torch.equal(once, reader(2, 8))
    whole = calibration(str(path), Bytes(), 1000, 8).ids
    many = reader(len(whole) + 2, 8)
    assert torch.equal(many[: len(whole)], whole)
    assert torch.equal(many[len(whole) :], whole[:2])
