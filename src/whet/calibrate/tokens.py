"""Windows of tokens to calibrate or measure on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.errors import FolderError
from whet.base.seed import stream_seed
from whet.calibrate.rows import Rows
from whet.calibrate.texts import Encoder, budgets, texts


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Windows of tokens, with the number of the document in which each begins.

    `available` counts the tokens of the source, `asked` the windows that were asked for.
    Law: equal source, tokenizer, sizes and seed give equal ids, hence an equal digest.
    """

    ids: Int64[Tensor, "samples length"]
    documents: Int64[Tensor, "samples"]
    description: str
    available: int
    asked: int

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the ids and their shape."""
        shape = "x".join(str(size) for size in self.ids.shape)
        return sha256(shape.encode() + self.ids.contiguous().numpy().tobytes()).hexdigest()


Heard = Callable[[int], None]  # called with the number of tokens that were read so far


def ignore(tokens: int) -> None:
    """Do nothing with the number of tokens that were read."""


def calibration(
    source: str,
    tokenizer: Encoder,
    samples: int = 128,
    length: int = 512,
    seed: int = 0,
    heard: Heard = ignore,
) -> Tokens:
    """Return up to `samples` windows of `length` tokens, spread evenly over the source.

    Where the source is shorter, there are fewer windows, and `description` says so; less than one
    window is an error. Each window begins with the token that texts begin with, if the model
    expects one. `heard` is called after each document, and may raise to stop.
    """
    cut = _cut(source, tokenizer, samples, length, seed, heard)
    picks = cut.spread(samples)
    begins = cut.origin + picks * cut.own
    documents = torch.searchsorted(cut.starts, begins, right=True) - 1
    count, available = len(picks), len(cut.stream)
    short = f" (asked for {samples}: the text has {available} tokens)" if count < samples else ""
    description = f"{source}, {count} windows of {length} tokens{short}"
    return Tokens(cut.windows(picks), documents, description, available, samples)


def spare(
    source: str, tokenizer: Encoder, samples: int, length: int, seed: int, count: int
) -> Int64[Tensor, "windows length"]:
    """Return up to `count` windows, spread evenly, that `calibration` with these sizes leaves out.

    Law: they share no token of the text with its windows. Raises FolderError if it leaves none.
    """
    cut = _cut(source, tokenizer, samples, length, seed)
    taken = set(cut.spread(samples).tolist())
    others = torch.tensor([n for n in range(cut.whole) if n not in taken], dtype=torch.int64)
    if not len(others):
        raise FolderError(
            f"calibration text {source}: all of its {cut.whole} windows of {length} tokens are "
            "calibrated on, so that none is left to judge on",
            "Give more text, or calibrate on fewer samples.",
        )
    chosen = torch.linspace(0, len(others) - 1, min(count, len(others)), dtype=torch.float64)
    return cut.windows(others[chosen.round().long()])


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """A text as `whole` windows of `own` tokens each, from token `origin` on."""

    stream: Int64[Tensor, "tokens"]
    starts: Int64[Tensor, "documents"]
    first: list[int]
    own: int
    whole: int
    origin: int

    def spread(self, samples: int) -> Int64[Tensor, "samples"]:
        """Return the numbers of so many windows, evenly spread."""
        count = min(samples, self.whole)
        return torch.linspace(0, self.whole - 1, count, dtype=torch.float64).round().long()

    def windows(self, picks: Int64[Tensor, "samples"]) -> Int64[Tensor, "samples length"]:
        """Return windows by their numbers."""
        begins = self.origin + picks * self.own
        ids = self.stream[begins[:, None] + torch.arange(self.own)]
        return torch.cat([torch.tensor(self.first).long().expand(len(picks), -1), ids], 1)


def _cut(
    source: str,
    tokenizer: Encoder,
    samples: int,
    length: int,
    seed: int,
    heard: Heard = ignore,
) -> _Cut:
    """Read a text and cut it into windows."""
    first = tokenizer.encode("a", special=True)[:1] if tokenizer.adds_bos else []
    own = length - len(first)
    stream, starts = _stream(source, tokenizer, samples * length, heard)
    whole = len(stream) // own
    if not whole:
        raise FolderError(
            f"calibration text {source}: {len(stream)} tokens found, at least {own} needed",
            f"Give more text, or a window of at most {max(len(stream), 1)} tokens.",
        )
    origin = stream_seed(seed, "calibration") % (len(stream) - whole * own + 1)
    return _Cut(stream, starts, first, own, whole, origin)


@dataclass(frozen=True, slots=True)
class Reader:
    """Windows of a source, as many as are asked for and always the same ones.

    A source that is too short for so many is read again from its beginning.
    """

    source: str
    tokenizer: Encoder
    seed: int = 0

    def __call__(self, samples: int, time: int) -> Int64[Tensor, "samples time"]:
        """Return so many windows of so many tokens."""
        ids = calibration(self.source, self.tokenizer, samples, time, self.seed).ids
        return ids[torch.arange(samples) % len(ids)]


def _stream(
    source: str, tokenizer: Encoder, wanted: int, heard: Heard
) -> tuple[Int64[Tensor, "tokens"], Int64[Tensor, "documents"]]:
    """Return all tokens of a source in order, and where each of its documents begins."""
    pieces: list[Tensor] = []
    starts: list[int] = []
    total = 0
    for text in texts(source, Rows(partial(tokenizer.chat, generate=False)), *budgets(wanted)):
        if ids := tokenizer.encode(text):
            starts.append(total)
            pieces.append(torch.tensor(ids, dtype=torch.int64))
            total += len(ids)
        heard(total)
    stream = torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)
    return stream, torch.tensor(starts, dtype=torch.int64)
