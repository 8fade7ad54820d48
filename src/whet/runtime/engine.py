"""The reference executor: a saved folder that answers, in plain torch.

It reads only what is on disk, so that what is measured is what is shipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from whet.base.errors import FolderError, RecipeError
from whet.base.machine import free_memory
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.model import decoder
from whet.model.cache import Cache
from whet.model.decoder import Model
from whet.model.linear import Linear
from whet.runtime.reply import Reply
from whet.runtime.sample import Sampler, Sampling, recommended
from whet.runtime.stops import Stops
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.json_file import read_json
from whet.store.regular import contained
from whet.store.resolve import resolve
from whet.store.tokenizer import Tokenizer

GENERATION = "generation_config.json"
MAX_TOKENS = 256
CHARACTERS = 64  # a prompt with more for each token of the context is refused unread


def load(
    folder: str | Path, *, mapped: bool = True, unpacked: bool | None = False, offline: bool = False
) -> "Engine":
    """Return a saved folder, ready to answer; `demo` and hub ids are resolved.

    `mapped` reads weights through a memory map. `unpacked` decodes every weight once to float32,
    which writes tokens faster and takes four bytes a weight; None does so where that is at most
    half of the free memory.
    Law: logits do not depend on `mapped` or `unpacked`.
    """
    path = resolve(str(folder), offline)
    model = decoder.load(Checkpoint(Folder(path), mapped=mapped)).eval()
    if unpacked is None:
        unpacked = 4 * sum(prod(one.shape) for one in _linears(model)) <= free_memory() // 2
    if unpacked:
        unpack(model)
    return Engine(path, model, unpacked=unpacked)


def unpack(model: Model) -> None:
    """Decode every linear weight to float32 for good."""
    for linear in _linears(model):
        linear.replace(Weight(Plain("F32"), {"value": linear.weight.dense()}, linear.shape))


def _linears(model: Model) -> list[Linear]:
    """Return every linear once, also where embedding and head share one."""
    return [module for module in model.modules() if isinstance(module, Linear)]


class Engine:
    """A model in memory with its tokenizer; `executor` names what computes."""

    executor = "reference"

    def __init__(self, folder: Path, model: Model, *, unpacked: bool = False) -> None:
        self.folder, self.model, self.unpacked = folder, model, unpacked

    @property
    def context(self) -> int:
        """The longest sequence [token]."""
        return self.model.arch.context

    @property
    def vocab(self) -> int:
        """Number of logits."""
        return self.model.arch.vocab

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

    @torch.inference_mode()
    def logits(
        self, tokens: Int64[Tensor, "batch time"] | Sequence[int]
    ) -> Float[Tensor, "batch time vocab"]:
        """Return the logits of the token after each; a plain list is a batch of one."""
        rows = (
            tokens
            if isinstance(tokens, Tensor)
            else torch.tensor([list(tokens)], dtype=torch.int64)
        )
        return self.head(self.hidden(rows))

    @torch.inference_mode()
    def hidden(
        self, tokens: Int64[Tensor, "batch time"], cache: Cache | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """Return what the head reads, so that logits can be had a few at a time."""
        start = cache[0].length if cache else 0
        self._check(tokens, start)
        hidden = self.model.embedding(tokens, start)
        for block, held in zip(
            self.model.blocks, cache or [None] * len(self.model.blocks), strict=True
        ):
            hidden = block(hidden, held)
        return hidden

    @torch.inference_mode()
    def head(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Return the logits of hidden states."""
        return self.model.head(hidden)

    def _check(self, tokens: Int64[Tensor, "batch time"], start: int) -> None:
        if not tokens.numel():
            raise RecipeError("the prompt has no tokens", "Give at least one.")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab:
            found = low if low < 0 else high
            raise FolderError(
                f"token {found} found, {self.folder.name} knows 0 to {self.vocab - 1}",
                "Are the tokenizer and the weights of the same model?",
            )
        if start + tokens.shape[1] > self.context:
            raise self._too_long(start + tokens.shape[1])

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
        Law: greedy tokens are those of `transformers`.
        """
        if len(ids) >= self.context:
            raise self._too_long(len(ids))
        self._check(torch.tensor([list(ids)], dtype=torch.int64), 0)
        room = self.context - len(ids)
        limit = room if max_tokens is None else min(max_tokens, room)
        stops = frozenset(self.tokenizer.eos_ids if stop_ids is None else stop_ids)
        return self._tokens(list(ids), Sampler(sampling or Sampling()), limit, stops)

    def _tokens(
        self, history: list[int], sampler: Sampler, limit: int, stops: frozenset[int]
    ) -> Iterator[int]:
        cache = self.model.new_cache()
        fresh = list(history)
        for _ in range(limit):
            token = sampler.next(self._last(fresh, cache), history)
            if token in stops:
                return
            yield token
            history.append(token)
            fresh = [token]

    @torch.inference_mode()
    def _last(self, tokens: list[int], cache: Cache) -> NDArray[np.float32]:
        """Return the logits after the last of the tokens, which follow those in the cache."""
        return self.head(self.hidden(torch.tensor([tokens]), cache)[0, -1]).numpy()

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
