"""Texts to calibrate or measure on, from files, folders and hub datasets. Needs no torch."""

import json
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, resources
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from whet.base.errors import FolderError, MissingError, RecipeError, UnsupportedError
from whet.base.paths import local_path
from whet.calibrate.rows import Rows, bad, conversation_column
from whet.store.template import shared_worker

SUFFIXES = (".txt", ".jsonl")  # of the files that are read in a folder
ONE_FILE = (*SUFFIXES, ".json")  # of a file that is given itself
PIECE = 1 << 20  # [byte] of a .txt that are read or passed over together
BOM, NEWLINE, CONTINUATION = b"\xef\xbb\xbf", b"\n", bytes(range(0x80, 0xC0))
LONGEST_ROW = 16 << 20  # [byte]
GIVE = "Give a .txt, .jsonl or .json file, a folder of them, `builtin`, or hf:org/name."
LONGEST_ARRAY = 256 << 20  # of a file that is one JSON array [byte]
CHARACTERS = 48  # text read for each token asked for; more is passed over, evenly
LEAST_READ = 8 << 20  # text that is always read [character]
LEAST_RENDERED = 1 << 16  # conversations that are always rendered, where a source holds such [byte]
WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
RECODE = "Save it as UTF-8, e.g. iconv -f {} -t UTF-8 OLD > NEW."


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

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, generate: bool = ..., **values: object
    ) -> str:
        """Return a conversation as text, by the model's own template."""
        ...


def budgets(tokens: int) -> tuple[int, int]:
    """Return how many characters of text, and of conversations, to read for some tokens.

    Reading costs little, so that much is read and the windows are spread over it; a conversation
    must be rendered.
    """
    wanted = tokens * CHARACTERS
    return max(LEAST_READ, wanted), max(LEAST_RENDERED, wanted)


def texts(source: str, rows: Rows, budget: int, conversations: int | None = None) -> Iterator[str]:
    """Yield the documents of a source; beyond `budget` characters, an even part of them.

    `conversations` is the budget of a source of conversations, if it is another.
    """
    with shared_worker():
        if source.startswith("hf:"):
            yield from _hub_texts(source.removeprefix("hf:"), rows, budget)
            return
        files = text_files(source)
        if conversations is not None and _holds_conversations(files[0], rows):
            budget = conversations
        stride = max(1, -(-sum(path.stat().st_size for path in files) // budget))
        share = _Share(stride)
        for path in files:
            yield from _plain(path, stride) if path.suffix == ".txt" else _json(path, rows, share)


def _holds_conversations(path: Path, rows: Rows) -> bool:
    """Return whether the first row of a file is a conversation."""
    if path.suffix == ".txt" or rows.column:
        return False
    first = next((row for row, _ in _rows(path, _Share(1))), None)
    return isinstance(first, dict) and conversation_column(cast("Any", first)) is not None


def text_files(source: str) -> tuple[Path, ...]:
    """Return the files of a source that is on this disk, or raise; none of them is read."""
    if source == "builtin":
        return (Path(str(resources.files("whet") / "data" / "calibration.txt")),)
    path = local_path(source)
    if source and path.is_dir():
        found = tuple(sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file()))
        if not found:
            raise FolderError(f"the folder {source} has no {' or '.join(SUFFIXES)} file", GIVE)
        return found
    if not (source and path.exists()):
        raise MissingError(f"no text at {source or 'an empty path'}", GIVE)
    if not path.is_file() or path.suffix not in ONE_FILE:
        raise RecipeError(f"text {source}: expected {' or '.join(ONE_FILE)}, or a folder", GIVE)
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
    if not start:
        _refuse_wide(data, path)
    whole = data.lstrip(CONTINUATION) if start else data.removeprefix(BOM)
    try:
        return getincrementaldecoder("utf-8")().decode(whole, last)
    except UnicodeDecodeError as error:
        place = len(data) - len(whole) + error.start
        where = f"byte {start + place}" if start else f"row {data[:place].count(NEWLINE) + 1}"
        fault = f"{path}, {where}: not UTF-8 text ({error.reason})"
        raise bad(fault, RECODE.format("LATIN1")) from error


def _refuse_wide(data: bytes, path: Path) -> None:
    """Raise if a file begins as UTF-16 or UTF-32 does."""
    found = next((name for mark, name in WIDE.items() if data.startswith(mark)), None)
    if found is not None:
        raise bad(f"{path}, row 1: not UTF-8 text (it begins as {found})", RECODE.format(found))


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
    for row, where in _rows(path, share):
        yield rows.text(row, where)


def json_rows(path: Path) -> Iterator[tuple[object, str]]:
    """Yield every row of a .jsonl file, or of a .json file with one array, and its place."""
    yield from _rows(path, _Share(1))


def _rows(path: Path, share: _Share) -> Iterator[tuple[object, str]]:
    """Yield the picked rows of a file, one a line or the items of one array, and their places."""
    with path.open("rb") as file:
        start = file.read(64)
        _refuse_wide(start, path)
        file.seek(0)
        if path.suffix == ".json" and start.removeprefix(BOM).lstrip().startswith(b"["):
            yield from _array(file.read(LONGEST_ARRAY + 1), path, share)
            return
        number = 0
        while line := file.readline(LONGEST_ROW + 1):
            number += 1
            where = f"{path}, row {number}"
            if len(line) > LONGEST_ROW:
                size = f"{LONGEST_ROW >> 20} MiB"
                raise bad(f"{where}: longer than {size}", "Split it into documents.")
            line = line.removeprefix(BOM) if number == 1 else line
            if line.strip() and share.takes(len(line)):
                yield _parsed(line, where), where


def _array(data: bytes, path: Path, share: _Share) -> Iterator[tuple[object, str]]:
    """Yield the picked items of a JSON array."""
    if len(data) > LONGEST_ARRAY:
        size = f"{LONGEST_ARRAY >> 20} MiB"
        raise bad(
            f"{path}: one JSON array, larger than {size}", "Write one object a line (.jsonl)."
        )
    found = cast("list[object]", _parsed(data.removeprefix(BOM), f"{path}"))
    size = len(data) // max(len(found), 1)
    for number, row in enumerate(found, 1):
        if share.takes(size):
            yield row, f"{path}, row {number}"


def _parsed(line: bytes, where: str) -> object:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise bad(f"{where}: not UTF-8 text ({error.reason})", RECODE.format("LATIN1")) from error
    except RecursionError as error:
        raise bad(f"{where}: nested too deeply") from error
    except ValueError as error:
        raise bad(f"{where}: not JSON ({error})") from error


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
