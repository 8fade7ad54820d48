"""Choosing the next token from logits. Needs numpy only.

The filters and their order are those of `transformers`: repetition penalty, temperature, top-k,
top-p, min-p; then one token is drawn from what is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whet.base.errors import FolderError, NumericalError, RecipeError

Numbers = NDArray[np.float64]
DAMAGED = "Mend or remove that setting."
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; `temperature == 0` takes the most likely one.

    `top_k == 0`, `top_p == 1`, `min_p == 0` and `repetition_penalty == 1` change nothing.
    Without a `seed` each run differs.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        _check("temperature", self.temperature, "0 or more", self.temperature >= 0)
        _check("top_k", self.top_k, "0 (off) or more", self.top_k >= 0)
        _check("top_p", self.top_p, "from 0 to 1 (off)", 0 <= self.top_p <= 1)
        _check("min_p", self.min_p, "from 0 (off) to 1", 0 <= self.min_p <= 1)
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, "above 0; 1 is off", penalty > 0)
        seed = self.seed or 0
        _check("seed", seed, f"from 0 to {LARGEST_SEED}", 0 <= seed <= LARGEST_SEED)

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0


def _check(name: str, value: float | int, expected: str, good: bool) -> None:  # noqa: FBT001
    if not (good and isfinite(value)):
        raise RecipeError(f"{name} is {value}, expected {expected}", f"Give another {name}.")


def recommended(config: Mapping[str, Any]) -> Sampling:
    """Return what a model's `generation_config.json` recommends; greedy where it says nothing.

    What a sampling model leaves open is as in `transformers`: temperature 1, top-k 50.
    """
    penalty = _number(config, "repetition_penalty", 1.0)
    if config.get("do_sample") is not True:
        return _sampling(repetition_penalty=penalty)
    return _sampling(
        temperature=_number(config, "temperature", 1.0),
        top_k=int(_number(config, "top_k", 50.0)),
        top_p=_number(config, "top_p", 1.0),
        min_p=_number(config, "min_p", 0.0),
        repetition_penalty=penalty,
    )


def _sampling(**settings: Any) -> Sampling:  # noqa: ANN401
    """Return settings of a file; what has no meaning is the file's fault."""
    try:
        return Sampling(**settings)
    except RecipeError as error:
        raise FolderError(f"generation_config.json: {error.message}", DAMAGED) from error


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    found = config.get(name)
    if found is None:
        return default
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise FolderError(
            f"generation_config.json has {name} = {found!r}, expected a number", DAMAGED
        )
    return float(found)


class Sampler:
    """Draws tokens one after another. Law: equal seeds, logits and histories give equal tokens."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._chance = np.random.default_rng(sampling.seed)

    def twin(self) -> "Sampler":
        """Return another that will draw the same random numbers."""
        other = Sampler(self.sampling)
        other._chance.bit_generator.state = self._chance.bit_generator.state
        return other

    def next(self, logits: ArrayLike, history: Sequence[int]) -> int:
        """Return a token; `history` is all tokens so far, the prompt too."""
        if self.sampling.greedy:
            scores = penalized(_finite(logits), history, self.sampling.repetition_penalty)
            return int(scores.argmax())
        heights = distribution(logits, history, self.sampling).cumsum()
        found = np.searchsorted(heights, self._chance.random() * heights[-1], side="right")
        return int(min(found, heights.searchsorted(heights[-1])))


def distribution(logits: ArrayLike, history: Sequence[int], sampling: Sampling) -> Numbers:
    """Return the probability of each token after all filters.

    Law: equal to the softmax after `transformers`' processors of the same settings.
    """
    scores = penalized(_finite(logits), history, sampling.repetition_penalty)
    if sampling.greedy:
        return np.eye(1, len(scores), int(scores.argmax()))[0]
    scores = (scores - scores.max()) / sampling.temperature
    return softmax(_min_p(_top_p(_top_k(scores, sampling.top_k), sampling.top_p), sampling.min_p))


def _finite(logits: ArrayLike) -> Numbers:
    """Return logits in float64; minus infinity forbids a token, the rest must be finite."""
    scores = np.array(logits, dtype=np.float64)
    if not scores.size or np.isnan(scores).any() or not np.isfinite(scores.max()):
        raise NumericalError(
            "the model's logits are not finite, so no token can be chosen",
            "Its weights or the recipe that made them are damaged: run `whet verify`.",
        )
    return scores


def penalized(scores: Numbers, history: Sequence[int], penalty: float) -> Numbers:
    """Return scores with the tokens of the history made less likely (arXiv 1909.05858 §4.1)."""
    if penalty == 1 or not len(history):
        return scores
    seen = np.unique(np.asarray(history, dtype=np.int64))
    seen = seen[seen < len(scores)]
    held = scores[seen]
    scores[seen] = np.where(held < 0, held * penalty, held / penalty)
    return scores


def softmax(scores: Numbers) -> Numbers:
    """Return probabilities; minus infinity gives exactly 0."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _top_k(scores: Numbers, k: int) -> Numbers:
    """Keep the `k` best, and what ties with the last of them."""
    if not 0 < k < len(scores):
        return scores
    least = np.partition(scores, -k)[-k]
    return np.where(scores < least, -np.inf, scores)


def _top_p(scores: Numbers, p: float) -> Numbers:
    """Keep the fewest best that hold `p` of the mass, one at least (arXiv 1904.09751 §3.1)."""
    if p >= 1:
        return scores
    order = np.argsort(scores, kind="stable")
    removed = softmax(scores[order]).cumsum() <= 1 - p
    removed[-1] = False
    scores[order[removed]] = -np.inf
    return scores


def _min_p(scores: Numbers, p: float) -> Numbers:
    """Keep what is at least `p` times as likely as the best (arXiv 2407.01082 §3)."""
    chances = softmax(scores)
    return np.where(chances < p * chances.max(), -np.inf, scores)
