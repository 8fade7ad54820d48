"""The tables of a search; a table without facts is None."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from whet.base.quantity import Quantity
from whet.report import words as say
from whet.report.evidence import note, value
from whet.report.search import frontier
from whet.report.search.found import Limit, Mark, Search, Unit, known
from whet.report.table import Table, numbers, words
from whet.report.tables import MANY, MISSING

NAMES = {
    "size": "size",
    "bpw": "bit per weight",
    "decode": "generation",
    "ttft": "first token",
    "memory": "memory",
    "kl": "KL",
    "ppl": "rise of perplexity",
}
MB = 1e6
PRICES = (
    "−1 MB: the KL that a megabyte less costs, by the unit's best smaller level. "
    "+1 MB: what one more buys, by its best larger level."
)


def amount(fact: Quantity | None, *, share: bool = False) -> str:
    """Return a quantity as people read it; a dash where there is none."""
    if fact is None:
        return MISSING
    return say.percent(fact.value) if share else say.quantity(fact.value, fact.unit)


def every(search: Search) -> tuple[tuple[str, Table], ...]:
    """Return the tables that a search has, each under its heading."""
    makers = (
        ("Limits", limits),
        ("Allocation", allocation),
        ("The most sensitive units", sensitive),
        ("What more or less room would do", megabytes),
        ("Predicted and measured", predictions),
        ("What was considered", trials),
        ("What was not offered", rejected),
    )
    found = ((heading, make(search)) for heading, make in makers)
    return tuple((heading, data) for heading, data in found if data is not None)


def limits(search: Search) -> Table | None:
    """Return each limit with what was predicted, what was measured, and what is left of it."""
    if not search.limits:
        return None
    rows = tuple(_limit_row(limit) for limit in search.limits)
    heads = words("limit", "asked") + numbers("bound", "predicted", "measured", "left")
    return Table(
        heads + words(""), rows, "Left: how far it is from the limit, as a share of the limit."
    )


def _limit_row(limit: Limit) -> tuple[str, ...]:
    """Return one limit."""
    share = limit.name == "ppl"
    bound = say.trimmed(amount(limit.limit, share=share))
    state = "binds" if limit.binding else ""
    if limit.slack is not None and limit.slack < 0:
        state = "not met"
    return (
        NAMES.get(limit.name, limit.name),
        limit.text,
        ("≤ " if limit.most else "≥ ") + bound,
        amount(limit.predicted, share=share),
        amount(limit.measured, share=share),
        MISSING if limit.slack is None else say.percent(limit.slack, 2),
        state,
    )


def predictions(search: Search) -> Table | None:
    """Return what was predicted of the chosen model beside what was measured."""
    facts = search.head.facts
    names = [name.removesuffix("_predicted") for name in facts if name.endswith("_predicted")]
    order = [name for name in NAMES if name in names] + sorted(set(names) - NAMES.keys())
    rows = tuple(
        (
            NAMES.get(name, name.replace("_", " ")),
            amount(guess, share=name == "ppl"),
            amount(found, share=name == "ppl"),
            _off(guess, found),
        )
        for name in order
        for guess, found in [(facts[f"{name}_predicted"], facts.get(f"{name}_measured"))]
    )
    heads = words("what") + numbers("predicted", "measured", "difference")
    return Table(heads, rows, _sums(search)) if rows else None


def _off(guess: Quantity, found: Quantity | None) -> str:
    """Return how far a measurement is from its prediction."""
    if found is None or not known(guess.value) or known(found.value) is None:
        return MISSING
    return signed_percent(found.value / guess.value - 1)


def signed_percent(share: float) -> str:
    """Return a change with its sign: `+3.1 %`."""
    if abs(share) < 5e-5:
        return "none" if share == 0 else "under 0.01 %"
    return ("+" if share > 0 else "") + say.percent(share, 2)


def _sums(search: Search) -> str:
    """Return how the KL went from the sum over units to the model as a whole."""
    facts = search.head.facts
    told = [
        f"{label} {amount(facts[name])}"
        for name, label in (
            ("kl_additive", "summed over the units"),
            ("kl_assembled", "all units put together, on held-out text"),
            ("kl_predicted", "predicted for the folder"),
            ("kl_measured", "measured"),
        )
        if name in facts
    ]
    return f"KL: {'; '.join(told)}." if told else ""


def allocation(search: Search) -> Table | None:
    """Return the chosen levels, a row for each layer; layers that are alike share one."""
    if not search.units:
        return None
    places = {(unit.layer, unit.column): unit.level for unit in search.units}
    columns = search.columns
    lines = [
        (layer, tuple(places.get((layer, c), MISSING) for c in columns)) for layer in search.layers
    ]
    rows = [
        (_span([layer for layer, _ in same]), *levels)
        for levels, found in groupby(lines, key=lambda line: line[1])
        for same in [list(found)]
    ]
    return Table(words("layer", *columns), tuple(rows), _alone(search)) if rows else None


def _span(layers: Sequence[int]) -> str:
    """Return layers that follow each other: `3` or `3–5`."""
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"


def _alone(search: Search) -> str:
    """Return the levels of the units that are in no layer."""
    told = [f"{unit.site}: {unit.level}" for unit in search.units if unit.layer is None]
    return "; ".join(told)


def sensitive(search: Search, most: int = 10) -> Table | None:
    """Return the units where the standard level costs most."""
    ordered = sorted(
        (unit for unit in search.units if unit.sensitivity), key=_sensitivity, reverse=True
    )
    if not ordered:
        return None
    columns = (
        *(words("unit") + numbers("weights", f"KL at {_standard(ordered)} [nat]")),
        *(words("chosen") + numbers("bit/weight", "KL [nat]", "−1 MB [nat]", "+1 MB [nat]")),
    )
    shown = ordered[:most]
    prices = [[_per_mb(frontier.price(u, more=more)) for u in shown] for more in (False, True)]
    cells = (
        [unit.site for unit in shown],
        [say.short_count(unit.weights) if unit.weights else MISSING for unit in shown],
        say.aligned([unit.sensitivity for unit in shown]),
        [unit.level for unit in shown],
        say.aligned([unit.bits for unit in shown]),
        say.aligned([unit.kl for unit in shown]),
        *(say.aligned(price) for price in prices),
    )
    return Table(columns, tuple(zip(*cells, strict=True)), PRICES)


def _per_mb(price: float | None) -> float | None:
    """Return a price for each megabyte."""
    return None if price is None else price * MB


def _sensitivity(unit: Unit) -> float:
    """Return the KL at the standard level, or zero [nat]."""
    return unit.sensitivity or 0.0


def _standard(units: Iterable[Unit]) -> str:
    """Return the level that sensitivities are told at."""
    found = list(dict.fromkeys(unit.standard for unit in units if unit.standard))
    return found[0] if len(found) == 1 else "the standard level"


def number(found: float | None, digits: int = 3) -> str:
    """Return a number, or a dash."""
    return MISSING if found is None else say.significant(found, digits)


def megabytes(search: Search) -> Table | None:
    """Return what the next sizes up and down would have, by the predicted frontier."""
    found = frontier.steps(search)
    if len(found) < 2:
        return None
    rows = tuple(
        zip(
            [_more(step.more) for step in found],
            [say.size(step.size) for step in found],
            say.aligned([step.kl for step in found]),
            [signed_percent(step.ratio - 1) if step.more else MISSING for step in found],
            say.aligned([_per_mb(step.price) for step in found]),
            strict=True,
        )
    )
    heads = numbers("in all", "predicted KL [nat]", "change of KL", "for each MB [nat]")
    return Table(words("size") + heads, rows, _slopes(search))


def _more(nbytes: float) -> str:
    """Return a difference of sizes: `1 MB more`."""
    if not nbytes:
        return "as chosen"
    return f"{say.trimmed(say.size(abs(nbytes)))} {'more' if nbytes > 0 else 'less'}"


def _slopes(search: Search) -> str:
    """Return the price of a megabyte at the chosen size, both ways."""
    less, more = (None if s is None else say.significant(s * MB) for s in frontier.slopes(search))
    told = [f"the next smaller point costs {less} nat per MB"] if less else []
    told += [f"the next larger one buys {more} nat per MB"] if more else []
    return f"At the chosen size {say.listing(told)}." if told else ""


def rejected(search: Search) -> Table | None:
    """Return what was never offered, and why."""
    if not search.rejected:
        return None
    rows = tuple(
        (
            note(r, "level", MISSING),
            r.site or "any",
            say.count(value(r, "units") or 1.0),
            note(r, "reason", MISSING),
        )
        for r in search.rejected
    )
    left = len(rows) - MANY
    more = f"{say.count(left)} more are in records.jsonl." if left > 0 else ""
    return Table(
        words("level", "unit") + numbers("units") + words("why not"),
        rows[:MANY],
        more,
    )


def considered(search: Search) -> tuple[Mark, ...]:
    """Return the models that the table of trials lists: chosen, trials, uniform levels."""
    return (search.chosen, *search.trials[:MANY], *search.uniforms)


def trials(search: Search) -> Table | None:
    """Return the models that were considered, a row each."""
    rows = tuple(row_of(mark) for mark in considered(search))
    heads = words("model") + numbers("size", "KL [nat]", "generation", "time spent")
    return Table(heads + words("state", "what it is"), rows) if len(rows) > 1 else None


def points(search: Search) -> Table | None:
    """Return the points of the predicted frontier, a row each, the smallest first."""
    rows = [
        (
            say.size(mark.size or 0.0),
            number(mark.kl),
            speed(mark.decode),
            note(mark.record, "trial", MISSING),
            note(mark.record, "levels", MISSING),
        )
        for mark in search.frontier
    ]
    heads = numbers("size", "predicted KL [nat]", "generation") + words("trial", "levels")
    said = [i for i in range(len(heads)) if any(row[i] != MISSING for row in rows)]
    kept = tuple(tuple(row[i] for i in said) for row in rows)
    return Table(tuple(heads[i] for i in said), kept) if rows else None


def row_of(mark: Mark) -> tuple[str, ...]:
    """Return the cells of a model that was considered."""
    seconds = known(value(mark.record, "seconds")) if mark.kind != "uniform" else None
    return (
        mark_name(mark),
        say.size(mark.size) if mark.size else MISSING,
        number(mark.kl),
        speed(mark.decode),
        say.duration(seconds) if seconds else MISSING,
        _state(mark),
        _what(mark),
    )


def mark_name(mark: Mark) -> str:
    """Return what a model of the plot is called."""
    if mark.kind == "point":
        return "frontier"
    return {"chosen": "the result", "trial": f"trial {mark.name}"}.get(mark.kind, mark.name)


def speed(decode: float | None) -> str:
    """Return a speed of generation."""
    return MISSING if decode is None else f"{say.significant(decode)} token/s"


def _state(mark: Mark) -> str:
    """Return what became of a model."""
    if mark.kind == "chosen":
        return "measured" if "kl_measured" in mark.record.facts else "predicted"
    if mark.kind == "uniform":
        return "reference"
    return "chosen" if mark.chosen else note(mark.record, "state", MISSING)


def _what(mark: Mark) -> str:
    """Return how a model differs from the others."""
    if mark.kind == "chosen":
        return "the folder"
    if mark.kind == "uniform":
        return f"{mark.name} everywhere"
    told = [note(mark.record, name) for name in ("structure", "reason", "levels")]
    return "; ".join(part for part in told if part) or MISSING
