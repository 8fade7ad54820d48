"""The tables of a report, each a function of the evidence; a table without facts is None."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum

from whet.base.record import Record
from whet.report import words as say
from whet.report.evidence import PARTS, Estimate, Evidence, Module, estimate, note, value
from whet.report.table import Column, Table, numbers, words

MISSING = "–"
QUALITY = (  # fact, heading
    ("tokens", "tokens"),
    ("ppl_original", "perplexity, original"),
    ("ppl", "perplexity"),
    ("ppl_delta", "Δ perplexity"),
    ("kl_mean", "KL mean [nat]"),
    ("kl_median", "KL median"),
    ("kl_p99", "KL 99 %"),
    ("top1", "same first choice"),
)
SHARES = frozenset({"top1"})  # shown in percent
SPEEDS = {"decode": "generation", "ttft": "time to first token", "peak_rss": "peak memory"}
MACHINE = ("os", "cpu", "isa", "memory", "threads", "python", "torch", "transformers")
MANY = 600  # more rows than this are left to records.jsonl


def measured(found: Estimate | None, name: str = "") -> str:
    """Return a measured number as `42.28 ± 0.31`."""
    if found is None:
        return MISSING
    scale, unit = (100.0, " %") if name in SHARES else (1.0, "")
    if found.half is not None:
        number, half = say.with_error(found.value * scale, found.half * scale)
        return f"{number} ± {half}{unit}"
    if found.value == round(found.value, 0) and not unit:
        return say.count(found.value)
    return say.significant(found.value * scale, 4 if name.startswith("ppl") else 3) + unit


def quality(e: Evidence) -> Table | None:
    """Return one row for each text that was measured, in the columns of llama-perplexity."""
    if not e.measures:
        return None
    kept = [(name, label) for name, label in QUALITY if any(name in r.facts for r in e.measures)]
    rows = [
        (note(r, "data", "text"), *(measured(estimate(r, name), name) for name, _ in kept))
        for r in e.measures
    ]
    columns = tuple(Column(label, numeric=True, how=_how(e.measures, name)) for name, label in kept)
    return Table((Column("text"), *columns), tuple(rows), _quality_note(e))


def _how(records: Iterable[Record], name: str) -> str:
    """Return how a fact was obtained, from the first record that has it."""
    return next((r.facts[name].how for r in records if name in r.facts), "")


def _quality_note(e: Evidence) -> str:
    """Return what ± means, and over how much text."""
    level = note(e.quality, "confidence", "95 %")
    counts = (("documents", "document"), ("windows", "window"))
    found = [(value(e.quality, name), word) for name, word in counts]
    parts = [f"± is half of the {level.rstrip('.')} interval"]
    parts += [say.plural(number, word) for number, word in found if number is not None]
    return ", ".join(parts) + "."


def percentiles(e: Evidence) -> tuple[tuple[str, float], ...]:
    """Return the distribution of KL over tokens: (what, KL [nat]), ascending."""
    record = e.quality
    points = [
        (f"{share} % of tokens change less than", found)
        for name, share in _shares(record)
        if (found := value(record, name)) is not None
    ]
    if (mean := value(record, "kl_mean")) is not None:
        points.append(("the mean over tokens", mean))
    if (most := value(record, "kl_max")) is not None:
        points.append(("the token that changed most", most))
    return tuple(sorted(points, key=lambda point: point[1]))


def _shares(record: Record | None) -> list[tuple[str, str]]:
    """Return the percentiles that a measurement has: (fact, share in percent)."""
    names = record.facts if record else ()
    matches = ((name, re.fullmatch(r"kl_p(\d\d)(\d*)", name)) for name in names)
    digits = [(name, match[1], match[2]) for name, match in matches if match]
    return [("kl_median", "50")] + [(n, f"{a}.{b}" if b else a) for n, a, b in digits]


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
    rest = Part(
        "everything else",
        max((parameters or 0.0) - fsum(p.weights for p in known), 0.0),
        max(total - fsum(p.before for p in known), 0.0),
        max(after - fsum(p.after for p in known), 0.0),
    )
    return (*known, rest)


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


def schemes(e: Evidence) -> Table | None:
    """Return what was done to how many modules, the most frequent first."""
    if not e.modules:
        return None
    kinds = Counter((m.method or MISSING, m.format, _activation(m)) for m in e.modules)
    bits = {(m.method or MISSING, m.format, _activation(m)): m.bits for m in e.modules}
    rows = tuple(
        (method, name, activation, say.count(many), say.significant(bits[method, name, activation]))
        for (method, name, activation), many in kinds.most_common()
    )
    return Table(words("method", "weights", "inputs") + numbers("modules", "bit per weight"), rows)


def _activation(module: Module) -> str:
    """Return the format of a module's input, or a dash."""
    return MISSING if module.activation in {"", "None", "none"} else module.activation


def worst(e: Evidence, most: int = 8) -> Table | None:
    """Return the modules whose output changed most."""
    known = sorted((m for m in e.modules if m.error is not None), key=_error, reverse=True)
    if not known:
        return None
    rows = tuple((m.name, m.format, m.method, say.percent(_error(m))) for m in known[:most])
    return Table(words("module", "format", "method") + numbers("output error"), rows)


def _error(module: Module) -> float:
    """Return the output error of a module, or zero."""
    return module.error or 0.0


def tokens(e: Evidence, most: int = 30) -> Table | None:
    """Return the tokens whose prediction changed most, in their context."""
    if not e.changed_tokens:
        return None
    rows = tuple(
        (
            note(r, "context"),
            note(r, "original"),
            note(r, "compressed"),
            *(say.significant(value(r, n) or 0.0) for n in ("p_original", "p_compressed", "kl")),
        )
        for r in e.changed_tokens[:most]
    )
    how = [_how(e.changed_tokens, n) for n in ("p_original", "p_compressed", "kl")]
    labels = ("p original", "p compressed", "KL [nat]")
    heads = tuple(Column(label, numeric=True, how=h) for label, h in zip(labels, how, strict=True))
    return Table(words("context", "original says", "compressed says") + heads, rows)


def fallbacks(e: Evidence) -> Table | None:
    """Return every place where a method did something else than it was asked."""
    if not e.fallbacks:
        return None
    rows = tuple((r.site, r.step, r.fallback or "") for r in e.fallbacks[:MANY])
    left = len(e.fallbacks) - len(rows)
    return Table(words("module", "method", "what was done instead"), rows, _left(left))


def _left(number: int) -> str:
    """Return a sentence about rows that are not shown."""
    return f"{say.count(number)} more are in records.jsonl." if number > 0 else ""


def skipped(e: Evidence) -> Table | None:
    """Return the modules that were left as they were, gathered by name and reason."""
    kinds = Counter(
        (re.sub(r"(?<=\.)\d+(?=\.|$)", "*", r.site), note(r, "reason", MISSING))
        for r in e.every("skip")
    )
    if not kinds:
        return None
    rows = tuple((site, say.count(many), why) for (site, why), many in kinds.items())
    return Table((Column("module"), Column("modules", numeric=True), Column("why")), rows[:MANY])


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
    """Return what was timed of the saved folder, one row a number."""
    rows: list[tuple[str, ...]] = []
    for record in e.every("speed"):
        for name in sorted(
            (n for n in record.facts if not n.endswith(("_low", "_high"))), key=_speed_order
        ):
            found = estimate(record, name)
            assert found is not None
            plain = say.quantity(found.value, found.unit)
            text = f"{measured(found)} {found.unit}" if found.half is not None else plain
            what = SPEEDS.get(name, name.replace("_", " "))
            rows.append((what, note(record, "executor"), note(record, "threads"), text))
    heads = words("what", "executor") + numbers("threads", "value")
    return Table(heads, tuple(rows)) if rows else None


def _speed_order(name: str) -> tuple[bool, int, str]:
    """Return where a speed stands: prefill by its length, then those of `SPEEDS`."""
    digits = re.sub(r"\D", "", name)
    known = list(SPEEDS).index(name) if name in SPEEDS else -1
    return name in SPEEDS, int(digits[:9] or 0) if known < 0 else known, name


def modules(e: Evidence) -> Table | None:
    """Return the modules with their schemes; the experts of a block stand in one row."""
    groups: dict[tuple[str, str, str, str], list[Module]] = {}
    for m in e.modules:
        key = (
            re.sub(r"\.experts\.\d+\.", ".experts.*.", m.name),
            m.format,
            _activation(m),
            m.method,
        )
        groups.setdefault(key, []).append(m)
    if not groups:
        return None
    rows = [_module_row(key, group) for key, group in groups.items()]
    heads = words("module", "weights", "inputs", "method")
    columns = heads + numbers("bit per weight", "size", "output error") + words("why this format")
    return Table(columns, tuple(rows[:MANY]), _left(len(rows) - MANY))


def _module_row(key: tuple[str, str, str, str], group: list[Module]) -> tuple[str, ...]:
    """Return a row for modules that were treated alike."""
    errors = [m.error for m in group if m.error is not None]
    many = f" ({len(group)})" if len(group) > 1 else ""
    return (
        key[0] + many,
        *key[1:],
        say.significant(group[0].bits),
        say.size(fsum(m.nbytes for m in group)),
        say.percent(fsum(errors) / len(errors)) if errors else MISSING,
        group[0].reason,
    )


def environment(e: Evidence) -> Table | None:
    """Return the machine and the versions of what did the work."""
    record = e.last("environment")
    if record is None:
        return None
    told = dict(record.notes) | {n: say.quantity(f.value, f.unit) for n, f in record.facts.items()}
    names = [n for n in MACHINE if n in told] + sorted(told.keys() - set(MACHINE))
    rows = [(name, told[name]) for name in names]
    if version := note(e.last("command"), "version"):
        rows.insert(0, ("whet", version))
    return Table(words("what", "value"), tuple(rows))


def provenance(e: Evidence) -> Table | None:
    """Return every number about the whole model with how it was obtained."""
    last = {r.step: r for r in e.records if r.site in {"", "total"} and r.facts}
    last.pop("token", None)
    rows = tuple(
        (step, name.replace("_", " "), say.quantity(fact.value, fact.unit), fact.how)
        for step, record in last.items()
        for name, fact in sorted(record.facts.items())
    )
    columns = (Column("step"), Column("what"), Column("value", numeric=True), Column("how"))
    return Table(columns, rows) if rows else None
