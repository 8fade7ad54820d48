"""How fast folders are on this machine: time to first token, prefill, decode, memory bandwidth.

The runs alternate between the folders and the bandwidth probe, so that a noisy neighbour disturbs
all of them alike, and are done again where one did (`whet.measure.calm`); numbers are medians with
intervals from order statistics. Torch-free.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.seed import stream_seed
from whet.measure.bandwidth import bandwidth, how, token_bytes
from whet.measure.intervals import median
from whet.measure.memory import PROMPT as CONTEXT
from whet.measure.memory import running
from whet.measure.windows import windows
from whet.measure.yardstick import calm
from whet.model.opened import opened
from whet.runtime.choice import told as reasons
from whet.runtime.engine import Engine
from whet.runtime.used import used

PROMPT, NEW, RUNS = 256, 32, 7  # [token], [token], rounds
MOST = 60  # rounds
TEXTS = 16  # pieces of a text that engines with a draft go on with
OTHERS = (32, 1024)  # further lengths of prompts [token]
DISTURBED = "the machine was slower than it has been, and did not become as quick in some time"
PRIVATE = frozenset({"layouts"})  # notes that name places on this machine
Told = Callable[[int, int], None]  # rounds done, of how many
Facts = dict[str, Quantity]


@dataclass(slots=True)
class Timed:
    """What was timed of one engine after prompts of one length, a value for each round."""

    engine: Engine
    prompts: Sequence[list[int]]
    new: int
    first: list[float] = field(default_factory=list[float])  # time to first token [s]
    decode: list[float] = field(default_factory=list[float])  # [token/s]
    turn: int = 0

    def round(self) -> tuple[float, float]:
        """Generate once, after the next of the prompts; return what it took, as `add` takes it."""
        ids = self.prompts[self.turn % len(self.prompts)]
        self.turn += 1
        moments = [perf_counter()]
        tokens = self.engine.generate(ids, max_tokens=self.new, stop_ids=())
        moments.extend(perf_counter() for _ in tokens)
        return moments[1] - moments[0], (len(moments) - 2) / (moments[-1] - moments[1])

    def add(self, first: float, decode: float) -> None:
        """Keep what a round took: the time to its first token [s], and its rate after that [token/s]."""
        self.first.append(first)
        self.decode.append(decode)

    def facts(self, *, main: bool) -> Facts:
        """Return the medians with their intervals; the `main` length's have the plain names."""
        length = len(self.prompts[0])
        prefill = [length / seconds for seconds in self.first]
        tail = "" if main else f"_{length}"
        after = f"tokens 2 to {self.new} after a prompt of {length}"
        first = f"prompt of {length} tokens to first token"
        return {
            **medians(f"prefill_{length}", prefill, "token/s", "prompt ÷ time to first token"),
            **medians(f"decode{tail}", self.decode, "token/s", after),
            **medians(f"ttft{tail}", self.first, "s", first),
        }


def speed(  # noqa: PLR0913
    engines: Sequence[Engine],
    *,
    prompt: int = PROMPT,
    others: Sequence[int] = OTHERS,
    new: int = NEW,
    runs: int = RUNS,
    seconds: float = 0.0,
    seed: int = 0,
    memory: bool = True,
    context: int = CONTEXT,
    told: Told | None = None,
) -> list[Record]:
    """Time engines in turn, each `runs` times; oftener, up to 60, where that takes less than `seconds`.

    Returns a record (step "speed") for each of them, then one (step "kernel") for each weight.
    Prompts are random tokens, of an engine with a draft pieces of a text (whose guesses are right as
    often as usual), shortened where a context is too small; the end of text is ignored.
    `others` are lengths of prompts that are timed too, where they fit.
    With `memory`, each folder's peak memory is measured too, in a fresh process that reads `context`
    tokens.
    """
    timed = [_prepared(engine, prompt, others, new, seed) for engine in engines]
    every = [one for lengths in timed for one in lengths]
    for one in every:
        one.round()
    threads = max(engine.executor.threads for engine in engines)
    quiet = calm(threads, max(int(token_bytes(engine.folder)) for engine in engines))
    done = 0

    def once() -> tuple[float, list[tuple[float, float]]]:
        nonlocal done
        found = bandwidth(threads), [one.round() for one in every]
        done += 1
        if told is not None:
            told(min(done, runs), runs)
        return found

    rounds = quiet.rounds(once, runs, max(runs, MOST), seconds)
    read = [rate for rate, _ in rounds]
    for _, taken in rounds:
        for one, pair in zip(every, taken, strict=True):
            one.add(*pair)
    noted = {"disturbed": DISTURBED} if quiet.given_up else {}
    found = list(_records(timed, read, context if memory else None, noted))
    return found + [record for engine in engines for record in kernels(engine)]


def kernels(engine: Engine) -> list[Record]:
    """Return which kernel multiplies by each weight and why others refuse (step "kernel")."""
    found: list[Record] = []
    for one in used(opened(engine.folder)):
        native = engine.executor.name == "native" and one.kernel
        notes = {"folder": engine.folder.name, "format": one.format}
        notes |= {"kernel": one.kernel if native else engine.executor.name}
        notes |= {"refused": "; ".join(one.refused)} if one.refused else {}
        found.append(Record("kernel", one.module, {}, notes=notes))
    return found


def _prepared(
    engine: Engine, prompt: int, others: Sequence[int], new: int, seed: int
) -> list[Timed]:
    """Return what is to be timed of an engine, the main length first."""
    new = max(2, min(new, engine.context // 2))
    room = engine.context - new
    main = max(1, min(prompt, room))
    lengths = [main, *(length for length in others if length <= room and length != main)]
    prompts = _prompts(engine, max(lengths), seed)
    return [Timed(engine, [ids[:length] for ids in prompts], new) for length in lengths]


def _prompts(engine: Engine, length: int, seed: int) -> list[list[int]]:
    """Return one prompt of random tokens, or, where guesses depend on them, several of a text."""
    if engine.draft is not None:
        return [ids.tolist() for ids in windows("builtin", engine.tokenizer, TEXTS, length).rows]
    chance = np.random.default_rng(stream_seed(seed, "speed"))
    return [chance.integers(engine.vocab, size=length).tolist()]


def _records(
    timed: Sequence[list[Timed]],
    read: list[float],
    context: int | None,
    noted: dict[str, str],
) -> Iterator[Record]:
    probe = medians("memory_read", read, "byte/s", how())
    for lengths in timed:
        engine = lengths[0].engine
        facts: Facts = {}
        for one in lengths:
            facts |= one.facts(main=one is lengths[0])
        facts |= probe | (_guesses(engine) if engine.draft else _share(lengths[0], read))
        if context is not None:
            facts |= running(engine, context)
        yield Record("speed", "", facts, notes=_notes(engine, len(read)) | noted)


def _notes(engine: Engine, runs: int) -> dict[str, str]:
    notes = {
        "executor": engine.executor.name,
        "threads": str(engine.executor.threads),
        "folder": engine.folder.name,
        "runs": str(runs),
        **{name: note for name, note in engine.executor.notes.items() if name not in PRIVATE},
    }
    return notes | ({"fallback": reasons(engine.fallback)} if engine.fallback else {})


def _guesses(engine: Engine) -> Facts:
    """Return what guesses were worth in all rounds."""
    how = "tokens for each step of the large model, with the guesses of the small one"
    return {"tokens_a_step": Quantity(engine.guessed.tokens_a_step, "1", how)}


def _share(timed: Timed, read: list[float]) -> Facts:
    """Return how much of the bandwidth of each round generation needs for the weights it reads.

    These are the bytes of layouts: those of bf16, say, have 12 bits a weight.
    """
    size = token_bytes(timed.engine.folder) * timed.engine.executor.density
    shares = [rate * size / speed for rate, speed in zip(timed.decode, read, strict=True)]
    what = f"decode × {size / 1e6:.1f} MB of weights a token ÷ memory_read of the round"
    return medians("bandwidth_share", shares, "1", what)


def medians(name: str, values: list[float], unit: str, how: str) -> Facts:
    """Return, as facts, a median and the ends of its interval."""
    found, sure = median(np.asarray(values))
    assert found.low is not None
    assert found.high is not None
    told = f"median of {len(values)} alternating runs: {how}"
    drawn = f"{sure:.1%} interval of the median, by order statistics"
    return {
        name: Quantity(found.value, unit, told),
        f"{name}_low": Quantity(found.low, unit, drawn),
        f"{name}_high": Quantity(found.high, unit, drawn),
    }
