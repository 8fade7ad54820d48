"""The trials of a search as a log that TensorBoard draws."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from whet.base.errors import UnsupportedError
from whet.base.record import Record

CHOICES = ("structure", "levels", "state", "reason", "chosen")  # notes of a trial
ENDS = ("measured", "predicted")  # of the result, the better first


def trials_to_tensorboard(records: Iterable[Record], folder: Path) -> int:
    """Write every trial as a run with its choices and numbers, and the curves; return how many.

    A trial without a number is a run too, so that failures are seen. The result is the run
    `result`. Curves: `generation/kl` by generation, `frontier/kl` by size [kB].
    """
    if find_spec("tensorboard") is None:
        raise UnsupportedError(
            "writing trials for TensorBoard needs tensorboard, which is not installed here",
            'pip install "whet[train]"',
        )
    from torch.utils.tensorboard import SummaryWriter

    known = tuple(records)
    runs = list(_runs(known))
    writer: Any = SummaryWriter(folder)
    try:
        for name, choices, numbers in runs:
            writer.add_hparams(choices, numbers, run_name=name)
        for name, step, value in _curves(known):
            writer.add_scalar(name, value, step)
    finally:
        writer.close()
    return len(runs)


Run = tuple[str, dict[str, str], dict[str, float]]


def _runs(records: tuple[Record, ...]) -> Iterator[Run]:
    """Yield the name of each run, what was chosen in it, and its numbers."""
    trials = {record.site: record for record in records if record.step == "trial"}
    for number, (site, record) in enumerate(trials.items()):
        name = site if site.isdecimal() and len(site) < 9 else f"unnamed-{number}"
        choices = {note: record.notes.get(note, "") for note in CHOICES}
        yield f"trial-{name}", choices, _numbers(record)
    head = next((r for r in reversed(records) if r.step == "search"), None)
    if head is not None:
        told = {"structure": "the result", "state": "complete", "chosen": "yes"}
        yield "result", dict.fromkeys(CHOICES, "") | told, _result(head)


def _numbers(record: Record) -> dict[str, float]:
    """Return the numbers of a trial that can be drawn."""
    facts = sorted(record.facts.items())
    return {f"trial/{name}": fact.value for name, fact in facts if isfinite(fact.value)}


def _result(head: Record) -> dict[str, float]:
    """Return the numbers of the chosen model: measured, or else predicted."""
    found: dict[str, float] = {}
    for end in ENDS:
        for name, fact in sorted(head.facts.items()):
            what, _, kind = name.rpartition("_")
            if kind == end and isfinite(fact.value):
                found.setdefault(f"trial/{what}", fact.value)
    return found


def _curves(records: tuple[Record, ...]) -> Iterator[tuple[str, int, float]]:
    """Yield the points of the curves: name, step, value."""
    for record in records:
        kl, size = record.facts.get("kl"), record.facts.get("size")
        if kl is None or not isfinite(kl.value):
            continue
        if record.step == "generation" and record.site.isdecimal() and len(record.site) < 9:
            yield "generation/kl", int(record.site), kl.value
        if record.step == "point" and size is not None and isfinite(size.value):
            yield "frontier/kl", round(size.value / 1000), kl.value
