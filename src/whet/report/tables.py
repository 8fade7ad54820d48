"""The tables of a report, each a function of the evidence; a table without facts is None."""

import re
from collections import Counter
from collections.abc import Iterable
from math import fsum

from whet.base.record import Record
from whet.report import words as say
from whet.report.evidence import Estimate, Evidence, Module, estimate, note, value
from whet.report.table import Column, Table, numbers, words

MISSING = "–"
QUALITY = (  # fact, heading
    ("ppl_original", "PPL original"),
    ("ppl", "PPL"),
    ("ppl_delta", "ΔPPL"),
    ("kl_mean", "KL mean [nat]"),
    ("kl_median", "KL median"),
    ("kl_p99", "KL 99 %"),
    ("delta_p_rms", "RMS Δp"),
    ("top1", "same top 1"),
)
SHARES = frozenset({"top1", "delta_p_rms"})  # shown in percent
MACHINE = ("os", "cpu", "isa", "memory", "threads", "python", "torch", "transformers")
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")  # of a block or an expert, in a name
MANY = 600  # more rows than this are left to records.jsonl


def measured(found: Estimate | None, name: str = "") -> str:
    """Return a measured number as `42.28 ± 0.31`."""
    if found is None:
        return MISSING
    scale, unit = (100.0, " %") if name in SHARES else (1.0, "")
    if found.half is not None and name != "ppl_original":  # what counts is the paired difference
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
    counts = (("tokens", "token"), ("windows", "window"), ("documents", "document"))
    found = [(value(e.quality, name), word) for name, word in counts]
    parts = [f"± is half of the {level.rstrip('.')} interval"]
    parts += [say.plural(number, word) for number, word in found if number is not None]
    return ", ".join(parts) + "."


def tasks(e: Evidence) -> Table | None:
    """Return the scores of downstream tasks, one row a metric."""
    rows = [
        (note(record, "task"), name.replace("_", " "), measured(estimate(record, name), "score"))
        for record in e.tasks
        for name in sorted(n for n in record.facts if not n.endswith(("_low", "_high")))
    ]
    columns = (*words("task", "metric"), Column("score", numeric=True, how=e.tasks_how))
    return Table(columns, tuple(rows)) if rows else None


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
        (re.sub(NUMBER, "*", r.site), note(r, "reason", MISSING)) for r in e.every("skip")
    )
    if not kinds:
        return None
    rows = tuple((site, say.count(many), why) for (site, why), many in kinds.items())
    return Table((Column("module"), Column("modules", numeric=True), Column("why")), rows[:MANY])


def unused(e: Evidence) -> Table | None:
    """Return the tensors of the source that the model does not use, gathered by name and reason."""
    kinds = Counter(
        (re.sub(NUMBER, "*", r.site), note(r, "use", MISSING), note(r, "reason", MISSING))
        for r in e.every("tensor")
    )
    if not kinds:
        return None
    rows = tuple((name, say.count(many), use, why) for (name, use, why), many in kinds.items())
    heads = (Column("tensor"), Column("tensors", numeric=True), *words("what became of it", "why"))
    return Table(heads, rows[:MANY])


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
