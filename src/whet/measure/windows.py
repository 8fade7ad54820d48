"""Windows of text to measure on: consecutive, apart, and sorted into documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import resources
from itertools import groupby
from pathlib import Path

import numpy as np

from whet.base.errors import FolderError
from whet.calibrate.rows import Rows
from whet.calibrate.texts import Encoder, budgets, texts
from whet.runtime.executor import Ids

WINDOWS = 128
LENGTH = 512  # [token]
SHORTEST = 16  # a document with fewer tokens is passed over
STRETCHES = 16  # into as many documents a text is cut, if it has the windows
LONGEST_STRETCH = 16  # [window]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Rows of tokens, and the document that each belongs to, numbered from 0.

    Law: no token of the source is in two windows.
    """

    rows: tuple[Ids, ...]
    documents: tuple[int, ...]
    name: str

    @property
    def tokens(self) -> int:
        """Return the length of all rows together [token]."""
        return sum(len(row) for row in self.rows)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all rows and their lengths."""
        found = sha256()
        for row in self.rows:
            found.update(f"{len(row)}:".encode() + row.tobytes())
        return found.hexdigest()


def windows(
    source: str,
    tokenizer: Encoder,
    count: int = WINDOWS,
    length: int = LENGTH,
) -> Windows:
    """Return up to `count` windows of `length` tokens, spread evenly over the source.

    A document is cut into consecutive windows and its short rest is dropped; one that is shorter
    than a window is a window by itself. Each window begins with the token that texts begin with, if
    the model expects one. A text of many windows counts as several documents, each a stretch of it,
    so that intervals can be had from one book.
    """
    path = _validation() if source == "builtin" else source
    first = tokenizer.encode("a", special=True)[:1] if tokenizer.adds_bos else []
    rows = Rows(partial(tokenizer.chat, generate=False))
    found: list[tuple[int, Ids]] = []
    tokens = 0
    for document, text in enumerate(texts(path, rows, *budgets(count * length))):
        ids = tokenizer.encode(text)
        ids = ids[1:] if first and ids[:1] == first else ids  # chat templates write it themselves
        tokens += len(ids)
        found += [(document, _row(first + piece)) for piece in _cut(ids, length - len(first))]
    if not found:
        raise FolderError(
            f"the text {source} has {tokens} tokens, too few for a window",
            f"Give a text of at least {SHORTEST} tokens.",
        )
    picks = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    chosen = [found[index] for index in picks]
    origins = [document for document, _ in chosen]
    name = "builtin (The Time Machine)" if source == "builtin" else _short(source)
    return Windows(tuple(row for _, row in chosen), tuple(_stretches(origins)), name)


def _validation() -> str:
    return str(resources.files("whet") / "data" / "validation.txt")


def _short(source: str) -> str:
    """Return the name of a source, without the folders that it lies in."""
    return source if source.startswith("hf:") else Path(source).name


def _row(ids: list[int]) -> Ids:
    return np.asarray(ids, np.int64)


def _cut(ids: list[int], length: int) -> list[list[int]]:
    """Return consecutive pieces of equal length, or the one piece that there is."""
    if len(ids) < length:
        return [ids] if len(ids) >= SHORTEST else []
    whole = len(ids) // length * length
    return [ids[start : start + length] for start in range(0, whole, length)]


def _stretches(origins: Sequence[int]) -> Iterator[int]:
    """Number the windows by document, where a long document counts as several."""
    size = min(max(len(origins) // STRETCHES, 1), LONGEST_STRETCH)
    number = -1
    for _, same in groupby(origins):
        for position, _ in enumerate(same):
            number += position % size == 0
            yield number
