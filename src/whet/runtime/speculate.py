"""Speculative decoding: a small model guesses tokens, the large one checks several in one step.

Leviathan, Kalman, Matias, arXiv:2211.17192, §2. There a guess is accepted by chance, so that what is
drawn is distributed as without guesses. Here the small model draws its guesses with the random numbers
that the large one will draw with: a guess is right if the large model draws the same token, and what
comes out is, token for token and seed for seed, what the large model alone would say, but for
the rounding of its logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from whet.runtime.executor import Executor, Ids
from whet.runtime.sample import Sampler

FIRST, MOST = 4, 12  # tokens that are guessed at once, at first and at most


@dataclass(slots=True)
class Tally:
    """How often the large model was asked after its first token, and what that gave."""

    steps: int = 0
    guessed: int = 0
    accepted: int = 0

    @property
    def tokens_a_step(self) -> float:
        """Tokens that a step of the large model gives [1]; 1 without guesses."""
        return 1 + self.accepted / self.steps if self.steps else 1.0


@dataclass(eq=False)
class Speculation:
    """One sequence that two models write. Law: its tokens are those of `model` alone."""

    model: Executor
    draft: Executor
    tally: Tally = field(default_factory=Tally)
    _ahead: int = FIRST

    def __post_init__(self) -> None:
        """Begin with nothing read."""
        self._cache, self._guessing = self.model.new_cache(), self.draft.new_cache()
        self._read = self._read_guessing = 0  # tokens of the history in each

    def tokens(self, history: list[int], sampler: Sampler, limit: int) -> Iterator[int]:
        """Yield at most `limit` tokens that follow a history, which grows by them."""
        left, guesses = limit, _ids([])
        while left > 0:
            for token in self._checked(history, guesses, sampler):
                yield token
                left -= 1
            guesses = self._guesses(history, sampler.twin(), left - 1)

    def _checked(self, history: list[int], guesses: Ids, sampler: Sampler) -> Iterator[int]:
        """Yield the tokens that are right, and the one that the model says after them."""
        fresh = np.concatenate([_ids(history[self._read :]), guesses])
        rows = self.model.step(fresh, self._cache, len(guesses) + 1)
        known = len(history)
        for place, row in enumerate(rows):
            token = sampler.next(row, history)
            history.append(token)
            right = place < len(guesses) and token == guesses[place]
            yield token
            if not right:
                break
        self._learn(len(guesses), len(history) - known - 1)
        self._read = len(history) - 1
        self.model.forget(self._cache, self._read)

    def _learn(self, guessed: int, accepted: int) -> None:
        """Guess more where all was right, and less where not."""
        if not guessed:
            return
        self.tally.steps += 1
        self.tally.guessed += guessed
        self.tally.accepted += accepted
        self._ahead = min(self._ahead + 2, MOST) if accepted == guessed else max(1, self._ahead - 1)

    def _guesses(self, history: list[int], sampler: Sampler, room: int) -> Ids:
        """Return what the small model says next, as far as its context and `room` allow."""
        self._read_guessing = min(self._read_guessing, len(history) - 1)
        self.draft.forget(self._guessing, self._read_guessing)
        count = min(self._ahead, room, self.draft.context - len(history))
        told, fresh = list(history), history[self._read_guessing :]
        for _ in range(count):
            row = self.draft.step(_ids(fresh), self._guessing)[-1]
            self._read_guessing += len(fresh)
            fresh = [sampler.next(row, told)]
            told += fresh
        return _ids(told[len(history) :])


def _ids(tokens: list[int]) -> Ids:
    return np.asarray(tokens, np.int64)
