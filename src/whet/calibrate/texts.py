"""Texts to calibrate or measure on, from files, folders and hub datasets. Needs no torch."""

import json
import os
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, resources
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from whet.base.errors import FolderError, MissingError, RecipeError, UnsupportedError

Chat = Callable[[Sequence[Mapping[str, Any]]], str]
SUFFIXES = (".txt", ".jsonl")
PIECE = 1 << 20  # [byte] of a .txt that are read or passed over together
BOM, NEWLINE, CONTINUATION = b"\xef\xbb\xbf", b"\n", bytes(range(0x80, 0xC0))
LONGEST_ROW = 16 << 20  # [byte]
GIVE = "Give a .txt or .jsonl file, a folder of them, `builtin`, or hf:org/name."
OTHER = "Rename the column, or give other text."
COLUMNS = "`text`, `messages`, or `prompt` and `completion`"


@runtime_checkable
class Encoder(Protocol):
    """What is asked of a tokenizer."""

    @property
    def adds_bos(self) -> bool:
        """Return whether the model expects a token before each text."""
        ...

    def encode(self, text: str, *, special: bool = ...) -> list[int]:
        """Return the tokens of a text, and if asked the special ones around it."""
        ...

    def chat(self, messages: Sequence[Mapping[str, Any]], *, generate: bool = ...) -> str:
        """Return a conversation as text, by the model's own template."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """How the rows of a source become text: one column, or by the column names they have."""

    chat: Chat
    column: str = ""

    def text(self, row: object, where: str) -> str:
        """Return the text of one row; `where` names it in errors."""
        if not isinstance(row, dict):
            raise _bad(f"{where}: a JSON object was expected, found {_kind(row)}")
        fields = cast("dict[str, Any]", row)
        if self.column:
            return _words(fields, self.column, where)
        if "text" in fields:
            return _words(fields, "text", where)
        if "messages" in fields:
            return self._conversation(fields["messages"], where)
        if "prompt" in fields and "completion" in fields:
            return _words(fields, "prompt", where) + _words(fields, "completion", where)
        found = ", ".join(sorted(fields)[:8]) or "none"
        raise _bad(f"{where}: expected {COLUMNS}; found columns: {found}", OTHER)

    def _conversation(self, messages: object, where: str) -> str:
        good = isinstance(messages, list) and messages
        if not good or not all(isinstance(one, dict) for one in cast("list[Any]", messages)):
            raise _bad(f"{where}: `messages` must be a list of objects with role and content")
        return self.chat(cast("list[dict[str, Any]]", messages))


def texts(source: str, rows: Rows, budget: int) -> Iterator[str]:
    """Yield the documents of a source; beyond `budget` characters, an even part of them."""
    if source.startswith("hf:"):
        yield from _hub_texts(source.removeprefix("hf:"), rows, budget)
    else:
        files = _files(source)
        stride = max(1, -(-sum(path.stat().st_size for path in files) // budget))
        share = _Share(stride)
        for path in files:
            yield from _plain(path, stride) if path.suffix == ".txt" else _json(path, rows, share)


def _files(source: str) -> tuple[Path, ...]:
    if source == "builtin":
        return (Path(str(resources.files("whet") / "data" / "calibration.txt")),)
    path = Path(os.path.expanduser(source))  # leaves an unknown ~name as it is
    if source and path.is_dir():
        found = tuple(sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file()))
        if not found:
            raise FolderError(f"the folder {source} has no {' or '.join(SUFFIXES)} file", GIVE)
        return found
    if not (source and path.exists()):
        raise MissingError(f"no text at {source or 'an empty path'}", GIVE)
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise RecipeError(f"text {source}: expected {' or '.join(SUFFIXES)}, or a folder", GIVE)
    return (path,)


def _plain(path: Path, stride: int) -> Iterator[str]:
    """Yield a text file: whole, or every `stride`-th piece of it, the others unread."""
    total = path.stat().st_size
    size = total if stride == 1 else min(PIECE, max(4, total // (64 * stride)))
    with path.open("rb") as file:
        for start in range(0, max(total, 1), max(size, 1) * stride):
            file.seek(start)
            yield _decoded(file.read(size), path, start, last=start + size >= total)


def _decoded(data: bytes, path: Path, start: int, *, last: bool) -> str:
    """Return a piece of UTF-8, less the halves of characters that it was cut through."""
    whole = data.lstrip(CONTINUATION) if start else data.removeprefix(BOM)
    try:
        return getincrementaldecoder("utf-8")().decode(whole, last)
    except UnicodeDecodeError as error:
        place = len(data) - len(whole) + error.start
        where = f"byte {start + place}" if start else f"row {data[:place].count(NEWLINE) + 1}"
        raise _bad(f"{path}, {where}: not UTF-8 text ({error.reason})") from error


@dataclass(slots=True)
class _Share:
    """Picks rows of all files so that one byte of `stride` is read; the first row always."""

    stride: int
    seen: int = 0
    taken: int = 0

    def takes(self, size: int) -> bool:
        """Return whether to read a row of some bytes."""
        wanted = self.seen >= self.stride * self.taken
        self.seen += size
        self.taken += size * wanted
        return wanted


def _json(path: Path, rows: Rows, share: _Share) -> Iterator[str]:
    """Yield the text of those rows of a file of JSON objects that are picked."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_ROW + 1):
            number += 1
            where = f"{path}, row {number}"
            if len(line) > LONGEST_ROW:
                size = f"{LONGEST_ROW >> 20} MiB"
                raise _bad(f"{where}: longer than {size}", "Split it into documents.")
            if line.strip() and share.takes(len(line)):
                yield rows.text(_parsed(line, where), where)


def _parsed(line: bytes, where: str) -> object:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise _bad(f"{where}: not UTF-8 text ({error.reason})") from error
    except RecursionError as error:
        raise _bad(f"{where}: nested too deeply") from error
    except ValueError as error:
        raise _bad(f"{where}: not JSON ({error})") from error


def _hub_texts(name: str, rows: Rows, budget: int) -> Iterator[str]:
    """Yield rows of a hub dataset, from its beginning on, until the budget is spent."""
    place, _, column = name.partition("#")
    used = 0
    stream = enumerate(_hub_rows(place), 1)
    for number, row in islice(stream, budget):
        text = Rows(rows.chat, column).text(row, f"hf:{place}, row {number}")
        yield text
        used += len(text)
        if used > budget:
            return


def _hub_rows(place: str) -> Iterable[object]:
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        message = f"hf:{place} needs the `datasets` package, which is not installed"
        raise UnsupportedError(message, 'pip install "whet[data]"') from error
    repository, _, split = place.partition(":")
    parts = repository.split("/")
    config = parts[2] if len(parts) > 2 else None
    try:
        return datasets.load_dataset(
            "/".join(parts[:2]), config, split=split or "train", streaming=True
        )
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise MissingError(f"cannot read the dataset hf:{place}: {first}") from error


def _words(fields: Mapping[str, Any], column: str, where: str) -> str:
    if column not in fields:
        found = ", ".join(sorted(fields)[:8]) or "none"
        raise _bad(f"{where}: no column {column!r}; found: {found}", OTHER)
    if not isinstance(fields[column], str):
        raise _bad(f"{where}: {column!r} must be text, found {_kind(fields[column])}")
    if any("\ud800" <= char <= "\udfff" for char in fields[column]):
        raise _bad(f"{where}: {column!r} has half a character (an unpaired surrogate)")
    return fields[column]


def _bad(fault: str, hint: str = "Mend or remove that row.") -> FolderError:
    return FolderError(fault, hint)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
