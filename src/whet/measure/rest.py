"""What a model takes besides its linears, timed in the native engine. Torch-free.

The engine says how long each operator took; what linears took is taken off the time that passed. What
is found holds for models of the same architecture whose weights take about as much memory: weights
drive everything else out of caches, which shows where a token takes less than a millisecond.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np

from whet.base.errors import UnsupportedError
from whet.base.seed import stream_seed
from whet.formats.keeping import PAGE, USUAL, Keeping, page_bytes
from whet.measure.bandwidth import token_bytes
from whet.measure.calm import Calm
from whet.measure.memory import NEW as TOKENS_WRITTEN
from whet.measure.memory import PROMPT as TOKENS_READ
from whet.measure.memory import running
from whet.measure.product import COUNTED, UNDISTURBED
from whet.measure.yardstick import calm
from whet.model.architecture import Architecture
from whet.runtime.choice import told
from whet.runtime.engine import Engine
from whet.runtime.native import Native
from whet.runtime.saved import Saved

PROMPTS = (8, 64, 256, 512, 1024)  # [token]
NEW = 24  # tokens written after each
RUNS, LEAST, PATIENCE = 9, 3, 1.5  # of a prompt: at most, at least, and a time to stop at [s]
SLOW = 2.0  # longer prompts are not timed once one took so long [s]

Linears = Callable[[int], float]  # seconds of linears that are not timed, in a step of some rows


@dataclass(frozen=True, slots=True)
class Rest:
    """What a model takes besides its linears.

    token, attended  of decoding: with an empty context, and more for each token of it [s]
    first            lengths of prompts [token] and what their first tokens take [s], ascending
    memory           of the process, apart from weights in layouts and from keys and values [byte]
    """

    token: float
    attended: float
    first: tuple[tuple[int, float], ...]
    memory: int

    def until_first(self, prompt: int) -> float:
        """Return what the first token after a prompt takes besides linears [s].

        Between timed lengths, and beyond the last, times are on a line.
        """
        if len(self.first) == 1:
            return self.first[0][1]
        spans = list(pairwise(self.first))
        span = next((s for s in spans if prompt <= s[1][0]), spans[-1])
        (low, lower), (high, upper) = span
        return max(0.0, lower + (upper - lower) * (prompt - low) / (high - low))


def rest(engine: Engine, *, others: Linears | None = None, memory: bool = True) -> Rest:
    """Return what a folder's model takes besides linears, by generating a few tokens.

    `others` are linears that the engine does not time apart (those of experts). With `memory`, a
    fresh process loads the folder.
    """
    executor = engine.executor
    if not isinstance(executor, Native):
        reason = told(engine.fallback) or "the reference executor was asked for"
        raise UnsupportedError(
            f"{engine.folder} is not run by the native kernels: {reason}",
            "Speed can be predicted for models that they run: `whet doctor` shows what is missing.",
        )
    new = max(1, min(NEW, engine.context // 4))
    chance = np.random.default_rng(stream_seed(0, "rest"))
    ids = chance.integers(engine.vocab, size=max(PROMPTS)).tolist()
    lengths = [n for n in PROMPTS if n + new < engine.context] or [1]
    quiet = calm(executor.threads, int(token_bytes(engine.folder)))
    first: list[tuple[int, float]] = []
    token: list[tuple[float, float]] = []
    for length in lengths:
        begin, after, slowest = _timed(engine, executor, ids[:length], new, quiet)
        first.append((length, begin - (others(length) if others else 0.0)))
        token.append((length + new / 2, after - (others(1) if others else 0.0)))
        if slowest > SLOW:
            break
    start, slope = line(token)
    return Rest(start, slope, tuple(first), _memory(engine, executor) if memory else 0)


def kept(arch: Architecture, context: int, cache: Keeping = USUAL) -> int:
    """Return the size of the keys and values of so many tokens [byte].

    Those of layers with a window are kept to the end too.
    """
    return arch.layers * arch.kv_heads * page_bytes(cache, arch.head_dim) * context // PAGE


def _timed(
    engine: Engine, executor: Native, ids: list[int], new: int, quiet: Calm
) -> tuple[float, float, float]:
    """Return the usual times of the first token and of those after it, and the longest run [s]."""
    _once(engine, executor, ids, new)
    slowest = 0.0

    def once() -> list[float]:
        nonlocal slowest
        before = perf_counter()
        found = _once(engine, executor, ids, new)
        slowest = max(slowest, perf_counter() - before)
        return found

    found = quiet.rounds(once, LEAST, RUNS, PATIENCE)
    after = [seconds for one in found for seconds in one[1:]]
    return _usual([one[0] for one in found]), _usual(after), slowest


def _usual(spent: list[float]) -> float:
    return float(np.quantile(spent, UNDISTURBED))


def _once(engine: Engine, executor: Native, ids: list[int], new: int) -> list[float]:
    """Return what the first token, and each after it, took besides linears [s]."""
    program, spent = executor.program.program, list[float]()
    tokens = engine.generate(ids, max_tokens=new + 1, stop_ids=())
    for _ in range(new + 1):
        program.time(True)  # noqa: FBT003 (of the extension)
        began = perf_counter()
        next(tokens)
        spent.append(perf_counter() - began - _linears(executor))
    program.time(False)  # noqa: FBT003
    return spent


def _linears(executor: Native) -> float:
    """Return what linears, and experts, took since time was last counted from zero [s]."""
    program = executor.program
    counted = COUNTED | {"experts"}
    every = zip(program.names, program.program.seconds, strict=False)
    return sum(seconds for name, seconds in every if name in counted)


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return start and slope, neither below zero, of the line nearest to points (least squares)."""
    x, y = np.array(points).T
    across, spread = x - x.mean(), float(((x - x.mean()) ** 2).sum())
    slope = float((across * y).sum()) / spread if spread else 0.0
    start = float(y.mean()) - slope * float(x.mean())
    if slope < 0:
        return max(0.0, float(y.mean())), 0.0
    if start < 0:
        return 0.0, max(0.0, float((x * y).sum()) / float((x * x).sum()))
    return start, slope


def _memory(engine: Engine, executor: Native) -> int:
    weights = executor.program.weights
    held = sum(x.nbytes for x in weights.layouts.values()) if isinstance(weights, Saved) else 0
    tokens = min(TOKENS_READ + TOKENS_WRITTEN, engine.context)
    context = kept(executor.arch, tokens, executor.program.machine.cache)
    return max(0, int(running(engine)["peak_rss"].value) - held - context)
