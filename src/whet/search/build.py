"""A choice made into a folder, and what that folder is measured to have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whet.base.allocator import trim
from whet.base.record import Record
from whet.formats.keeping import Keeping
from whet.measure import apart
from whet.measure.divergence import judged
from whet.recipe.pipeline import pipeline, stage_leaves
from whet.recipe.recipe import Recipe
from whet.runtime.engine import load
from whet.search.ask import Ask
from whet.search.limits import Limits
from whet.store.folder import Folder
from whet.store.writer import shard_bytes

RUNS, FEW = 5, 3  # of speed: of the result, and of what is built to learn from
TRIES = 3  # of timings that are disturbed
TIMED = 2.0  # that rounds go on for in any case: a small model's are short, and vary [s]


def exact_bytes(recipe: Recipe, folder: Folder) -> int:
    """Return the size of the weight files that a recipe will write, a draft's included [byte]."""
    left = stage_leaves(pipeline(recipe, folder).stages[-1])
    mine = shard_bytes({n: (s.info.dtype, s.info.shape) for n, s in left.tensors.items()})
    return mine + (exact_bytes(recipe.drafts, folder) if recipe.drafts else 0)


def held_out_kl(
    folder: Path,
    original: Path,
    ids: "np.ndarray[tuple[int, int], np.dtype[np.int64]]",
    cache: Keeping | None = None,
) -> float:
    """Return the KL divergence of a folder from the original on some windows [nat per token].

    `cache`: what the folder's keys and values are kept in; None: what it says itself.
    """
    mine, theirs = load(folder, cache=cache, draft=False), load(original, draft=False)
    found = [part.kl for row in ids for part in judged(mine, theirs, row)]
    return float(np.concatenate(found).mean())


@dataclass(frozen=True, slots=True)
class Measured:
    """What a folder has, by the name of the limit on it, and the records of measuring it."""

    facts: Mapping[str, float]
    records: tuple[Record, ...]


def measured(folder: Path, ask: Ask, windows: int, *, timed: bool, again: bool = True) -> Measured:
    """Measure a folder as `whet measure` does: quality on some windows, size and, if asked, speed and memory.

    A timing that was disturbed is repeated if there is time (`again`).
    """
    original = ask.folder.path
    trim()  # another process is about to hold both models
    records = apart.compare(folder, original, ask.data, windows)
    facts = records[0].facts
    ppl, before = facts["ppl"].value, facts["ppl_original"].value
    found = {
        "kl": facts["kl_mean"].value,
        "ppl": ppl / before - 1,
        "size": float(sum(path.stat().st_size for path in folder.rglob("*.safetensors"))),
    }
    if timed:
        found |= _timed(folder, original, ask, records, again=again)
    return Measured(found, tuple(records))


def pace(folder: Path, limits: Limits, cache: Keeping | None = None) -> dict[str, float]:
    """Return how fast a folder is on this machine, and its peak memory, by the names of limits."""
    return _figures(_timings((folder,), limits, FEW, (), cache)[0])


def steady(folder: Path, limits: Limits, cache: Keeping | None = None) -> dict[str, float]:
    """Return the same; memory alone where something disturbed the timing and no limit depends on it."""
    records = _timings((folder,), limits, FEW, (), cache)
    found = _figures(records[0])
    kept = limits.timed or not any("disturbed" in record.notes for record in records)
    return found if kept else {"memory": found["memory"]}


def _timed(
    folder: Path, original: Path, ask: Ask, records: list[Record], *, again: bool
) -> dict[str, float]:
    """Measure speed and memory beside the original; add what is found to the records."""
    found = _timings((folder, original), ask.limits, RUNS, (32,), again=again)
    records += [record for record in found if record.step == "speed"]
    return _figures(found[0])


def _timings(
    folders: Sequence[Path],
    limits: Limits,
    runs: int,
    others: tuple[int, ...],
    cache: Keeping | None = None,
    *,
    again: bool = False,
) -> list[Record]:
    """Time folders in a fresh process; if it was disturbed, `again`, as where a limit depends on it."""
    rounds = apart.Rounds(
        prompt=limits.prompt, others=others, runs=runs, seconds=TIMED, context=limits.context
    )
    found: list[Record] = []
    for _ in range(TRIES if again or limits.timed else 1):
        found = apart.speed(folders, cache=cache, **rounds)
        if not any("disturbed" in record.notes for record in found):
            break
    return found


def _figures(record: Record) -> dict[str, float]:
    mine = record.facts
    return {
        "decode": mine["decode"].value,
        "ttft": mine["ttft"].value,
        "memory": mine["peak_rss"].value,
    }
