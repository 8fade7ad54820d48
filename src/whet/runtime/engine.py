"""A saved folder that answers: prompts, sampling, streamed text. Torch-free.

It reads only what is on disk, so that what is measured is what is shipped. What computes is an
`Executor`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from whet.base.errors import FolderError, RecipeError, UnsupportedError
from whet.formats.keeping import Keeping, parse_keeping
from whet.model.opened import opened
from whet.runtime.choice import chosen
from whet.runtime.executor import Choice, Executor, Ids, Inputs, Kernels, Logits
from whet.runtime.reply import Reply
from whet.runtime.sample import Sampler, Sampling, recommended
from whet.runtime.speculate import Speculation, Tally
from whet.runtime.stops import Stops
from whet.store.folder import DRAFT
from whet.store.json_file import read_json
from whet.store.regular import contained
from whet.store.resolve import resolve
from whet.store.tokenizer import Tokenizer

GENERATION = "generation_config.json"
MAX_TOKENS = 256
CHARACTERS = 64  # a prompt with more for each token of the context is refused unread


def load(
    folder: str | Path,
    executor: Choice = "auto",
    kernels: Kernels = "auto",
    *,
    cache: Keeping | None = None,
    inputs: Inputs = "int16",
    unpacked: bool | None = False,
    draft: str | Path | Literal[False] | None = None,
    offline: bool = False,
) -> "Engine":
    """Return a saved folder, ready to answer; `demo` and hub ids are resolved.

    `auto` takes the native executor, or, where it refuses, the reference, and `fallback` of the
    engine says why; `kernels` = `require` makes that an error. `cache`: what keys and values are kept
    in; None: what the folder says. `inputs`: what kernels round the inputs of integer weights to, where
    the folder does not say. `unpacked` is of the reference. `draft` is the folder of a smaller
    model with the same tokens, which guesses what this one then checks; None: the folder's own, if it
    has one and can take back what it has read; False: none.
    """
    kind = None if cache is None else parse_keeping(cache)
    path = resolve(str(folder), offline)
    found = chosen(opened(path), executor, kernels, cache=kind, inputs=inputs, unpacked=unpacked)
    engine = Engine(path, found.executor, found.fallback)
    wanted = _own_draft(path) if draft is None else draft
    if not wanted or (draft is None and engine.executor.remembers):
        return engine
    small = load(
        wanted, executor, kernels, inputs=inputs, unpacked=unpacked, draft=False, offline=offline
    )
    engine.guided(small)
    return engine


def _own_draft(folder: Path) -> Path | None:
    """Return the smaller model inside a folder, if there is one."""
    path = folder / DRAFT
    return path if (path / "config.json").is_file() and not path.is_symlink() else None


class Engine:
    """A model in memory with its tokenizer.

    `fallback` says why it is not the native executor that computes, where that was wanted.
    """

    def __init__(self, folder: Path, executor: Executor, fallback: tuple[str, ...] = ()) -> None:
        self.folder, self.executor, self.fallback = folder, executor, fallback
        self.draft: Engine | None = None
        self.guessed = Tally()

    def guided(self, draft: "Engine") -> None:
        """Let a smaller model guess what is generated (`whet.runtime.speculate`).

        Raises FolderError where its tokens are not the same, UnsupportedError where one of the two
        cannot take back what it has read.
        """
        refuse_strangers(self, draft)
        for one in (self, draft):
            if reason := one.executor.remembers:
                raise UnsupportedError(
                    f"{one.folder.name} cannot generate by guesses: {reason}",
                    "Leave --draft out, or keep keys and values in bf16 or int8.",
                )
        self.draft = draft

    @property
    def context(self) -> int:
        """The longest sequence [token]."""
        return self.executor.context

    @property
    def vocab(self) -> int:
        """Number of logits."""
        return self.executor.vocab

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer."""
        return Tokenizer(self.folder)

    @cached_property
    def recommended(self) -> Sampling:
        """The sampling that the model's authors recommend, or greedy."""
        return recommended(self._generation())

    def _generation(self) -> Mapping[str, Any]:
        there = (self.folder / GENERATION).exists()
        where = str(self.folder)
        return read_json(contained(self.folder, GENERATION, where)) if there else {}

    def logits(self, tokens: ArrayLike) -> Logits:
        """Return the logits of the token after each, (batch, time, vocab).

        A plain list is a batch of one; the sequences of a batch are computed one after the other.
        """
        rows = np.atleast_2d(np.asarray(tokens, np.int64))
        return np.stack([np.concatenate(list(self.pieces(row, len(row)))) for row in rows])

    def pieces(self, ids: Ids, size: int) -> Iterator[Logits]:
        """Yield the logits after each token of a sequence, those of `size` tokens at a time."""
        self._check(ids)
        cache = self.executor.new_cache()
        for start in range(0, len(ids), size):
            some = ids[start : start + size]
            yield self.executor.step(some, cache, len(some))

    def _check(self, ids: Ids) -> None:
        if not ids.size:
            raise RecipeError("the prompt has no tokens", "Give at least one.")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocab:
            found = low if low < 0 else high
            raise FolderError(
                f"token {found} found, {self.folder.name} knows 0 to {self.vocab - 1}",
                "Are the tokenizer and the weights of the same model?",
            )
        if len(ids) > self.context:
            raise self._too_long(len(ids))

    def _too_long(self, length: int) -> RecipeError:
        holds = f"{self.folder.name} holds {self.context}, its answer included"
        return RecipeError(f"{length} tokens are too many: {holds}", "Shorten the prompt.")

    def generate(
        self,
        ids: Sequence[int],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop_ids: Sequence[int] | None = None,
    ) -> Iterator[int]:
        """Yield new tokens until a stop id (not yielded), `max_tokens`, or the context is full.

        `sampling` is greedy and `stop_ids` are the tokenizer's, unless they are given.
        Law: greedy tokens of the reference executor are those of `transformers`.
        """
        if len(ids) >= self.context:
            raise self._too_long(len(ids))
        self._check(np.asarray(ids, np.int64))
        room = self.context - len(ids)
        limit = room if max_tokens is None else min(max_tokens, room)
        stops = frozenset(self.tokenizer.eos_ids if stop_ids is None else stop_ids)
        return self._tokens(list(ids), Sampler(sampling or Sampling()), limit, stops)

    def _tokens(
        self, history: list[int], sampler: Sampler, limit: int, stops: frozenset[int]
    ) -> Iterator[int]:
        for token in self._endless(history, sampler, limit):
            if token in stops:
                return
            yield token

    def _endless(self, history: list[int], sampler: Sampler, limit: int) -> Iterator[int]:
        """Yield `limit` tokens, whatever they are; the history grows by them."""
        if self.draft is not None:
            both = Speculation(self.executor, self.draft.executor, self.guessed)
            yield from both.tokens(history, sampler, limit)
            return
        cache = self.executor.new_cache()
        fresh = np.asarray(history, np.int64)
        for _ in range(limit):
            token = sampler.next(self.executor.step(fresh, cache)[-1], history)
            history.append(token)
            yield token
            fresh = np.asarray([token], np.int64)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a prompt, begun as the model expects it."""
        if len(text) > CHARACTERS * self.context:
            raise RecipeError(
                f"the prompt has {len(text)} characters, more than {self.context} tokens can hold",
                "Shorten the prompt.",
            )
        ids = self.tokenizer.encode(text, special=True)
        while ids and ids[-1] in self.tokenizer.eos_ids and ids[-1] != self.tokenizer.bos_id:
            ids.pop()  # some tokenizers end every text
        bos = self.tokenizer.bos_id
        return ids if ids or bos is None else [bos]

    def stream(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: Sequence[str] = (),
    ) -> Reply:
        """Return the continuation of a prompt, text that comes piece by piece.

        `sampling` is what the model's authors recommend, unless it is given.
        """
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        tokens = self.generate(ids, sampling or self.recommended, max_tokens)
        full = self.context - len(ids)
        return Reply(tokens, self.tokenizer.stream(after=ids), Stops(stop), max_tokens, full)

    def generate_text(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: Sequence[str] = (),
    ) -> str:
        """Return the continuation of a prompt."""
        return self.stream(prompt, sampling, max_tokens, stop).read()

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: Sequence[str] = (),
    ) -> Reply:
        """Return the answer to a conversation, written by the model's own chat template."""
        return self.stream(self.tokenizer.chat_ids(messages), sampling, max_tokens, stop)


def refuse_strangers(one: Engine, other: Engine, text: str | None = None) -> None:
    """Raise FolderError unless two models read a text alike; without one, a text of all tokens."""
    shown = text or one.tokenizer.decode(range(one.tokenizer.vocab_size))
    ids = [engine.tokenizer.encode(shown) for engine in (one, other)]
    if one.vocab != other.vocab or ids[0] != ids[1]:
        raise FolderError(
            f"{one.folder} and {other.folder} do not go together: they have different tokens "
            f"(vocabularies of {one.vocab} and {other.vocab})",
            "Take the model that the folder was made from, or another that was made from it.",
        )
