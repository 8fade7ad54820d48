"""What the model and the run take: size, time, speed; each table a function of the evidence."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum

from whet.base.record import Record
from whet.report import words as say
from whet.report.evidence import PARTS, Evidence, Module, estimate, note, value
from whet.report.table import Column, Table, numbers, words
from whet.report.tables import MISSING, measured

SPEEDS = {
    "decode": "generation",
    "ttft": "first token",
    "bandwidth_share": "share of bandwidth",
    "peak_rss": "peak memory",
    "memory_read": "memory read",
}  # facts after prefill, in this order; others stay in the records

GUIDED = {
    "decode_guided": "generation with it",
    "decode_alone": "without",
    "gain": "gain",
    "tokens_a_step": "tokens a step",
    "right": "guesses right",
}  # facts of a model that a smaller one guesses for


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the model: its weights, and its bytes before and after."""

    name: str
    weights: float
    before: float
    after: float


def parts(e: Evidence) -> tuple[Part, ...]:
    """Return the sizes of the model by part; what no scheme covers is `everything else`."""
    source, output = e.last("source"), e.last("output")
    total = value(output, "source_bytes") or value(source, "bytes")
    after, parameters = value(output, "bytes"), value(source, "parameters")
    if not total or not after:
        return ()
    each = total / parameters if parameters else 2.0
    found = [_part(name, [m for m in e.modules if m.part == name], each) for name in PARTS]
    known = [part for part in found if part.weights]
    if gone := _removed(e):
        known.append(Part("removed", gone, gone * each, 0.0))
    rest = Part(
        "everything else",
        max((parameters or 0.0) - fsum(p.weights for p in known), 0.0),
        max(total - fsum(p.before for p in known), 0.0),
        max(after - fsum(p.after for p in known), 0.0),
    )
    return (*known, rest)


def _removed(e: Evidence) -> float:
    """Return how many weights the stages have taken away."""
    stages = e.every("stage")
    left = value(stages[-1], "parameters") if stages else None
    return max((value(e.last("source"), "parameters") or 0.0) - left, 0.0) if left else 0.0


def _part(name: str, modules: list[Module], each: float) -> Part:
    """Return a part of the model; `each` is what a weight took before [byte]."""
    weights = fsum(8 * m.nbytes / m.bits for m in modules if m.bits > 0)
    return Part(name, weights, weights * each, fsum(m.nbytes for m in modules))


def sizes(e: Evidence) -> Table | None:
    """Return the sizes by part, with the whole in the last row."""
    known = parts(e)
    if not known:
        return None
    rows = [_size_row(part) for part in known]
    rows.append(
        _size_row(
            Part(
                "all files of weights",
                *(
                    fsum(getattr(part, field) for part in known)
                    for field in ("weights", "before", "after")
                ),
            )
        )
    )
    return Table(
        words("part") + numbers("weights", "before", "after", "smaller", "bit per weight"),
        tuple(rows),
        "Everything else: norms, biases, file headers and what the recipe left as it was. "
        "Scales and zero points are counted.",
    )


def stages(e: Evidence) -> Table | None:
    """Return what each stage of a recipe leaves, where a pass works on the whole model."""
    records = e.every("stage")
    if not records:
        return None
    rows = tuple(
        (
            note(r, "number", r.site),
            note(r, "steps", MISSING),
            say.short_count(value(r, "parameters") or 0.0),
            say.size(value(r, "bytes") or 0.0),
        )
        for r in records
    )
    return Table(words("stage", "steps") + numbers("parameters", "size"), rows)


def _size_row(part: Part) -> tuple[str, ...]:
    """Return a row of the table of sizes."""
    return (
        part.name,
        say.short_count(part.weights) if part.weights else MISSING,
        say.size(part.before),
        say.size(part.after),
        _smaller(part),
        say.significant(8 * part.after / part.weights) if part.weights else MISSING,
    )


def _smaller(part: Part) -> str:
    """Return by which factor a part shrank; a dash where it is the same but for file headers."""
    ratio = part.before / part.after if part.after else 1.0
    return say.times(ratio) if abs(ratio - 1) > 0.02 else MISSING


def phases(e: Evidence) -> tuple[tuple[str, float], ...]:
    """Return the time of each phase [s], the longest first, then the rest of the total."""
    known: dict[str, float] = {}
    for name, seconds in e.times:
        known[name] = known.get(name, 0.0) + seconds
    rest = (e.total_time or 0.0) - fsum(known.values())
    ordered = sorted(known.items(), key=lambda phase: (-phase[1], phase[0]))
    return (*ordered, ("everything else", rest)) if ordered and rest > 0.05 else tuple(ordered)


def times(e: Evidence) -> Table | None:
    """Return the time of each phase, with the whole in the last row."""
    known = phases(e)
    if not known:
        return None
    whole = e.total_time if e.total_time is not None else fsum(seconds for _, seconds in known)
    rows = [(name.replace("_", " "), say.duration(seconds)) for name, seconds in known]
    return Table(words("phase") + numbers("time"), (*rows, ("in all", say.duration(whole))))


def speed(e: Evidence) -> Table | None:
    """Return what was timed, one row a folder and way of running it."""
    if not e.speeds:
        return None
    found = {name for record in e.speeds for name in record.facts}
    names = [
        *_lengths("prefill", found),
        *(name for name in SPEEDS if name in found),
        *_lengths("decode", found),
    ]
    columns = tuple(
        Column(SPEEDS.get(name, name.replace("_", " ")), numeric=True, how=_how(e.speeds, name))
        for name in names
    )
    rows = tuple(
        (_ran(record), note(record, "threads"), *(_timed(record, name) for name in names))
        for record in e.speeds
    )
    return Table(words("folder") + numbers("threads") + columns, rows)


def drafts(e: Evidence) -> Table | None:
    """Return what guesses of smaller models gain, one row a pair."""
    rows = tuple(
        (note(record, "folder"), note(record, "draft"), *(_timed(record, name) for name in GUIDED))
        for record in e.every("draft")
    )
    columns = tuple(
        Column(title, numeric=True, how=_how(e.every("draft"), name))
        for name, title in GUIDED.items()
    )
    return Table(words("folder", "draft") + columns, rows) if rows else None


def kernels(e: Evidence) -> Table | None:
    """Return which kernels ran, a row for each folder, format and kernel."""
    if not e.kernels:
        return None
    found: dict[tuple[str, ...], int] = {}
    for record in e.kernels:
        row = tuple(note(record, name) for name in ("folder", "format", "kernel", "refused"))
        found[row] = found.get(row, 0) + 1
    rows = tuple((*row[:2], say.count(count), *row[2:]) for row, count in found.items())
    columns = words("folder", "format") + numbers("weights") + words("kernel", "others refuse")
    return Table(columns, rows)


def _lengths(what: str, found: Iterable[str]) -> list[str]:
    """Return the facts of a kind that have a length in their name, the shortest first."""
    ours = [name for name in found if re.fullmatch(rf"{what}_\d{{1,9}}", name)]
    return sorted(ours, key=lambda name: int(name.rpartition("_")[2]))


def _how(records: Iterable[Record], name: str) -> str:
    """Return how a fact was obtained."""
    return next((r.facts[name].how for r in records if name in r.facts), "")


def _ran(record: Record) -> str:
    """Return which folder ran, and how."""
    how = ", ".join(
        part for name in ("executor", "weights", "kernels") if (part := note(record, name))
    )
    folder = note(record, "folder")
    return f"{folder} ({how})" if folder and how else folder or how or MISSING


def _timed(record: Record, name: str) -> str:
    """Return a timed number with its interval and unit."""
    found = estimate(record, name)
    if found is None:
        return MISSING
    if found.half is None or found.unit != "token/s":
        return say.quantity(found.value, found.unit)
    return f"{measured(found)} {found.unit}"
