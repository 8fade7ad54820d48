"""How fast folders are on this machine: time to first token, prefill, decode, memory bandwidth.

The runs alternate between the folders and the bandwidth probe, so that a noisy neighbour disturbs
all of them alike; numbers are medians with intervals from order statistics.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.seed import stream_seed
from whet.measure.intervals import median
from whet.measure.memory import running
from whet.runtime.engine import Engine

PROMPT, NEW, RUNS = 256, 32, 7  # [token], [token], rounds
PROBE = 64 << 20  # numbers of four bytes that the bandwidth probe reads
Told = Callable[[int, int], None]  # rounds done, of how many


@dataclass(slots=True)
class Timed:
    """What was timed of one engine, a value for each round."""

    engine: Engine
    ids: list[int]
    new: int
    first: list[float] = field(default_factory=list[float])  # time to first token [s]
    decode: list[float] = field(default_factory=list[float])  # [token/s]

    def round(self) -> None:
        """Generate once."""
        moments = [perf_counter()]
        tokens = self.engine.generate(self.ids, max_tokens=self.new, stop_ids=())
        moments.extend(perf_counter() for _ in tokens)
        self.first.append(moments[1] - moments[0])
        self.decode.append((len(moments) - 2) / (moments[-1] - moments[1]))

    def facts(self) -> dict[str, Quantity]:
        """Return the medians with their intervals."""
        length = len(self.ids)
        prefill = [length / seconds for seconds in self.first]
        return {
            **_fact(f"prefill_{length}", prefill, "token/s", "prompt ÷ time to first token"),
            **_fact("decode", self.decode, "token/s", f"tokens 2 to {self.new} after the prompt"),
            **_fact("ttft", self.first, "s", f"prompt of {length} tokens to first token"),
        }


def speed(
    engines: Sequence[Engine],
    *,
    prompt: int = PROMPT,
    new: int = NEW,
    runs: int = RUNS,
    seed: int = 0,
    memory: bool = True,
    told: Told | None = None,
) -> list[Record]:
    """Time engines in turn, each `runs` times; one record (step "speed") for each of them.

    Prompts are random tokens, shortened where a context is too small; the end of text is ignored.
    With `memory`, each folder's peak memory is measured too, in a fresh process.
    """
    timed = [_prepared(engine, prompt, new, seed) for engine in engines]
    for one in timed:
        one.round()
        one.first.clear()
        one.decode.clear()
    read: list[float] = []
    for done in range(runs):
        read.append(bandwidth())
        for one in timed:
            one.round()
        if told is not None:
            told(done + 1, runs)
    return list(_records(timed, read, memory=memory))


def _prepared(engine: Engine, prompt: int, new: int, seed: int) -> Timed:
    new = max(2, min(new, engine.context // 2))
    length = max(1, min(prompt, engine.context - new))
    chance = np.random.default_rng(stream_seed(seed, "speed"))
    return Timed(engine, chance.integers(engine.vocab, size=length).tolist(), new)


def _records(timed: Sequence[Timed], read: list[float], *, memory: bool) -> Iterator[Record]:
    threads = torch.get_num_threads()
    probe = _fact("memory_read", read, "byte/s", f"sum of {4 * PROBE >> 20} MiB in the same rounds")
    for one in timed:
        notes = {
            "executor": one.engine.executor,
            "threads": str(threads),
            "folder": one.engine.folder.name,
            "runs": str(len(read)),
            "weights": "decoded at load" if one.engine.unpacked else "decoded at use",
        }
        facts = one.facts() | probe
        if memory:
            facts |= running(one.engine.folder, threads, unpacked=one.engine.unpacked)
        yield Record("speed", "", facts, notes=notes)


def bandwidth() -> float:
    """Return how fast memory is read by all threads [byte/s]."""
    buffer = torch.ones(PROBE, dtype=torch.int32)
    start = perf_counter()
    buffer.sum(dtype=torch.int32)
    return buffer.nbytes / (perf_counter() - start)


def _fact(name: str, values: list[float], unit: str, how: str) -> dict[str, Quantity]:
    """Return a median and the ends of its interval."""
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
