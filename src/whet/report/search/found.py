"""The records of a search, sorted: its limits, units, levels, trials and frontier."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.report.evidence import Evidence, note, value

LAYER = re.compile(r"layers\.\d+\.")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that was asked for, and what came of it; `slack` is the share that is left."""

    name: str
    text: str
    most: bool
    limit: Quantity | None
    predicted: Quantity | None
    measured: Quantity | None
    slack: float | None
    binding: bool


@dataclass(frozen=True, slots=True)
class Option:
    """One level of one unit: what it costs there."""

    level: str
    method: str
    kl: float | None  # [nat]
    nbytes: float | None
    decode: float | None  # [s]


@dataclass(frozen=True, slots=True)
class Unit:
    """Weights that are compressed alike, and the level that was chosen for them."""

    site: str
    layer: int | None
    role: str
    level: str
    method: str
    standard: str
    weights: float | None
    sensitivity: float | None  # KL at the standard level [nat]
    kl: float | None  # at the chosen one [nat]
    nbytes: float | None
    options: tuple[Option, ...]

    @property
    def column(self) -> str:
        """The site without its layer: what the units of a column have alike."""
        return self.site if self.layer is None else LAYER.sub("", self.site, 1)

    @property
    def bits(self) -> float | None:
        """What is stored of it [bit/weight]."""
        return 8 * self.nbytes / self.weights if self.nbytes and self.weights else None


@dataclass(frozen=True, slots=True)
class Mark:
    """A model of the plot: the chosen one, a trial, a uniform level, or a point of the frontier."""

    kind: str
    name: str
    size: float | None  # [byte]
    kl: float | None  # [nat]
    decode: float | None  # [token/s]
    record: Record

    @property
    def chosen(self) -> bool:
        """Whether it is what the search returned."""
        return self.kind == "chosen" or note(self.record, "chosen") == "yes"


@dataclass(frozen=True)
class Search:
    """Everything that a folder's records tell of its search."""

    head: Record
    evidence: Evidence

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """What was asked for."""
        return tuple(_limit(record) for record in self.evidence.every("limit"))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The units in the order of their records."""
        options: dict[str, dict[tuple[str, str], Option]] = {}
        for record in self._all("option"):
            told = _option(record)
            options.setdefault(record.site, {})[told.level, told.method] = told
        return tuple(
            _unit(record, tuple(options.get(record.site, {}).values()))
            for record in self.evidence.every("unit")
        )

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a unit."""
        return tuple(sorted({unit.layer for unit in self.units if unit.layer is not None}))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The kinds of units that layers have, in the order in which they occur."""
        return tuple(dict.fromkeys(u.column for u in self.units if u.layer is not None))

    @cached_property
    def frontier(self) -> tuple[Mark, ...]:
        """The predicted frontier, the smallest first."""
        marks = [_mark("point", "", record) for record in self._all("point")]
        sizes = {(m.size, m.kl): m for m in marks if m.size is not None and m.kl is not None}
        return tuple(mark for _, mark in sorted(sizes.items(), key=lambda pair: pair[0]))

    @cached_property
    def trials(self) -> tuple[Mark, ...]:
        """The outer choices that were tried."""
        return tuple(_mark("trial", r.site, r) for r in self.evidence.every("trial"))

    @cached_property
    def uniforms(self) -> tuple[Mark, ...]:
        """The same level everywhere, the smallest first."""
        marks = (_mark("uniform", r.site, r) for r in self.evidence.every("uniform"))
        return tuple(sorted(marks, key=lambda mark: mark.size or 0.0))

    @cached_property
    def chosen(self) -> Mark:
        """The model that the search returned: as measured, or else as predicted."""
        return Mark(
            "chosen",
            "chosen",
            *(self.outcome(name) for name in ("size", "kl", "decode")),
            record=self.head,
        )

    @cached_property
    def generations(self) -> tuple[tuple[float, float], ...]:
        """The best KL on held-out text after each generation: (number, KL [nat])."""
        pairs = [
            (float(r.site), known(value(r, "kl")))
            for r in self.evidence.every("generation")
            if r.site.isdecimal() and len(r.site) < 9
        ]
        return tuple((number, kl) for number, kl in sorted(_complete(pairs)))

    @cached_property
    def rejected(self) -> tuple[Record, ...]:
        """What was not offered, and why: the last record of each level, unit and reason."""
        found = {(r.site, note(r, "level"), note(r, "reason")): r for r in self._all("rejected")}
        return tuple(found.values())

    def outcome(self, name: str) -> float | None:
        """Return what the chosen model has of something: measured, or else predicted."""
        found = known(value(self.head, f"{name}_measured"))
        return known(value(self.head, f"{name}_predicted")) if found is None else found

    def _all(self, step: str) -> Iterable[Record]:
        """Return every record of a step."""
        return (record for record in self.evidence.records if record.step == step)


def searched(e: Evidence) -> Search | None:
    """Return the search that made a folder; None where no search did."""
    head = e.last("search")
    return None if head is None else Search(head, e)


def known(found: float | None) -> float | None:
    """Return a number that can be drawn and compared: finite and above zero."""
    return found if found is not None and isfinite(found) and found > 0 else None


def _complete(pairs: Iterable[tuple[float, float | None]]) -> Iterable[tuple[float, float]]:
    """Yield the pairs that have both numbers."""
    return ((a, b) for a, b in pairs if b is not None)


def _mark(kind: str, name: str, record: Record) -> Mark:
    """Return a point of the plot."""
    size, kl, decode = (known(value(record, fact)) for fact in ("size", "kl", "decode"))
    return Mark(kind, name, size, kl, decode, record)


def _option(record: Record) -> Option:
    """Return what a level costs."""
    facts = (value(record, name) for name in ("kl", "bytes", "decode_seconds"))
    return Option(note(record, "level"), note(record, "method"), *facts)


def _unit(record: Record, options: tuple[Option, ...]) -> Unit:
    """Return a unit with its levels."""
    layer = note(record, "layer")
    return Unit(
        record.site,
        int(layer) if layer.isdecimal() and len(layer) < 9 else None,
        note(record, "role", record.site),
        note(record, "level"),
        note(record, "method"),
        note(record, "standard"),
        known(value(record, "weights")),
        known(value(record, "sensitivity")),
        known(value(record, "kl")),
        known(value(record, "bytes")),
        options,
    )


def _limit(record: Record) -> Limit:
    """Return a limit; its slack is computed where it was not recorded."""
    limit, predicted, measured = (record.facts.get(n) for n in ("limit", "predicted", "measured"))
    most, slack = note(record, "kind", "max") != "min", value(record, "slack")
    reached = measured or predicted
    if slack is None and limit and reached and limit.value:
        slack = (1 if most else -1) * (limit.value - reached.value) / limit.value
    text = note(record, "text", record.site)
    binding = note(record, "binding") == "yes"
    return Limit(record.site, text, most, limit, predicted, measured, slack, binding)
