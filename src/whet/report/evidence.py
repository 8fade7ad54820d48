"""The records of one folder, sorted by what they are about."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.text import plain, visible

EVENTS = frozenset(
    [
        "command",
        "environment",
        "source",
        "recipe",
        "calibration",
        "plan",
        "stage",
        "scheme",
        "skip",
        "tensor",
        "reading",
        "block",
        "output",
        "verify",
        "time",
        "measure",
        "token",
        "speed",
        "draft",
        "drafted",
        "kernel",
        "task",
        "search",
        "limit",
        "unit",
        "option",
        "rejected",
        "trial",
        "point",
        "uniform",
        "generation",
    ]
)  # every other step is the name of a method
PARTS = ("embeddings", "attention", "MLP", "experts", "head")
EXPERT = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the interval that it lies in, if one was measured."""

    value: float
    low: float | None
    high: float | None
    unit: str
    how: str

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Module:
    """One linear weight of the compressed model, and what is known of it."""

    name: str
    role: str
    layer: int | None
    format: str
    activation: str
    reason: str
    bits: float  # [bit/weight]
    nbytes: float
    method: str
    error: float | None  # ‖XW−XŴ‖²/‖XW‖²
    fallback: str | None

    @property
    def column(self) -> str:
        """The role without the number of the expert: what the heat map calls it."""
        return EXPERT.sub(".experts.", self.role)

    @property
    def part(self) -> str:
        """The part of the model that it belongs to, one of `PARTS`."""
        return part_of(self.role)


def part_of(role: str) -> str:
    """Return the part of the model that a role belongs to, one of `PARTS`."""
    if role in {"embed", "head"}:
        return "embeddings" if role == "embed" else "head"
    if role.startswith("attn"):
        return "attention"
    return "experts" if EXPERT.search(role) else "MLP"


def estimate(record: Record | None, name: str) -> Estimate | None:
    """Return the fact `name` of a record with its interval `name_low`, `name_high`."""
    fact = record.facts.get(name) if record else None
    if record is None or fact is None:
        return None
    ends = [record.facts.get(f"{name}_{end}") for end in ("low", "high")]
    low, high = (end.value if end else None for end in ends)
    return Estimate(fact.value, low, high, fact.unit, fact.how)


def value(record: Record | None, name: str) -> float | None:
    """Return the value of a fact, or None if the record or the fact is not there."""
    fact = record.facts.get(name) if record else None
    return fact.value if fact else None


def note(record: Record | None, name: str, otherwise: str = "") -> str:
    """Return a note of a record, or `otherwise`."""
    return record.notes.get(name, otherwise) if record else otherwise


@dataclass(frozen=True)
class Evidence:
    """All records of a folder. Where a step was recorded twice for a site, the last one counts."""

    records: tuple[Record, ...]

    def last(self, step: str) -> Record | None:
        """Return the last record of a step about the whole model, or None."""
        return next((r for r in reversed(self.records) if r.step == step and not r.site), None)

    def every(self, step: str) -> tuple[Record, ...]:
        """Return the records of a step, the last one of each site, in the order of the sites."""
        return tuple({r.site: r for r in self.records if r.step == step}.values())

    @cached_property
    def rewrites(self) -> tuple[Record, ...]:
        """What the methods did: the last record of each method and site."""
        return tuple({(r.step, r.site): r for r in self.records if r.step not in EVENTS}.values())

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """The compressed modules, in the order of their schemes."""
        done: dict[str, list[Record]] = {}
        for record in self.rewrites:
            done.setdefault(record.site, []).append(record)
        return tuple(_module(scheme, done.get(scheme.site, [])) for scheme in self.every("scheme"))

    @cached_property
    def fallbacks(self) -> tuple[Record, ...]:
        """Where a method did something else than it was asked."""
        return tuple(record for record in self.rewrites if record.fallback)

    @cached_property
    def measures(self) -> tuple[Record, ...]:
        """The measurements of quality: the last one of each text, the newest at the end."""
        return self._newest("measure", ("data", "digest"))

    @cached_property
    def speeds(self) -> tuple[Record, ...]:
        """What was timed: the last one of each folder and way of running it."""
        return self._newest(
            "speed", ("folder", "executor", "weights", "kernels", "activations", "cache", "threads")
        )

    @cached_property
    def kernels(self) -> tuple[Record, ...]:
        """What multiplies by each weight: the last record of each folder and module."""
        found = {(note(r, "folder"), r.site): r for r in self.records if r.step == "kernel"}
        return tuple(found.values())

    @cached_property
    def tasks(self) -> tuple[Record, ...]:
        """The scores of downstream tasks: the last one of each task."""
        return self._newest("task", ("task",))

    @property
    def tasks_how(self) -> str:
        """How the scores were obtained."""
        facts = (fact for record in self.tasks for fact in record.facts.values())
        return next((fact.how for fact in facts), "")

    def _newest(self, step: str, notes: tuple[str, ...]) -> tuple[Record, ...]:
        """Return the last record of a step for each of its notes, the newest at the end."""
        found: dict[tuple[str, ...], Record] = {}
        for record in (r for r in self.records if r.step == step):
            key = tuple(note(record, name) for name in notes)
            found.pop(key, None)
            found[key] = record
        return tuple(found.values())

    @cached_property
    def quality(self) -> Record | None:
        """The newest measurement against the original, or the newest without one."""
        against = [record for record in self.measures if "kl_mean" in record.facts]
        return (against or list(self.measures) or [None])[-1]

    @cached_property
    def changed_tokens(self) -> tuple[Record, ...]:
        """The tokens that changed most, as the newest measurement found them."""
        return tuple(sorted(_newest_run(self.records, "token"), key=_damage, reverse=True))

    @cached_property
    def error_is(self) -> str:
        """What the methods call the error of an output."""
        facts = (record.facts.get("output_error") for record in self.rewrites)
        return next((fact.how for fact in facts if fact), "")

    @cached_property
    def times(self) -> tuple[tuple[str, float], ...]:
        """How long each part of the run took: (phase, time [s]); all blocks are one phase."""
        parts = [r for r in self.every("time") if r.site not in {"", "total"}]
        spent = [(re.sub(r"^block.*", "blocks", r.site), value(r, "seconds")) for r in parts]
        whole = self.last("time")
        facts = whole.facts.items() if whole else ()
        told = [(name, fact.value) for name, fact in facts if name != "total"]
        return (*((name, seconds) for name, seconds in spent if seconds is not None), *told)

    @cached_property
    def total_time(self) -> float | None:
        """How long the run took in all [s]."""
        whole = next((r for r in reversed(self.every("time")) if r.site == "total"), None)
        return value(self.last("time"), "total") if whole is None else value(whole, "seconds")

    @cached_property
    def peak_memory(self) -> float | None:
        """The largest resident size of the run [byte]."""
        found = [value(record, "peak_rss") for record in self.every("time")]
        return max((size for size in found if size is not None), default=None)

    @cached_property
    def depth(self) -> tuple[tuple[int, float, Record], ...]:
        """The error of the hidden states after each block: (layer, error, record)."""
        pairs = [(_layer(r.site), value(r, "drift"), r) for r in self.every("block")]
        return tuple(
            sorted(
                (
                    (layer, drift, r)
                    for layer, drift, r in pairs
                    if layer is not None and drift is not None
                ),
                key=lambda triple: triple[0],
            )
        )


def evidence(records: Iterable[Record]) -> Evidence:
    """Return the records, sorted by what they are about, their texts made safe to show."""
    return Evidence(tuple(_clean(record) for record in records))


def _clean(record: Record) -> Record:
    """Return a record whose texts have no control characters; only a recipe keeps its lines."""
    facts = {
        visible(n): Quantity(f.value, visible(f.unit), visible(f.how))
        for n, f in record.facts.items()
    }
    notes = {
        visible(name): plain(text, keep="\n") if name == "yaml" else visible(text)
        for name, text in record.notes.items()
    }
    fallback = None if record.fallback is None else visible(record.fallback)
    return Record(visible(record.step), visible(record.site), facts, fallback, notes)


def _damage(record: Record) -> float:
    """Return how much a token changed [nat]."""
    return value(record, "kl") or 0.0


def _newest_run(records: Sequence[Record], step: str) -> list[Record]:
    """Return the last unbroken run of the records of a step."""
    run: list[Record] = []
    for record in reversed(records):
        if record.step == step:
            run.append(record)
        elif run:
            break
    return run[::-1]


def _layer(site: str) -> int | None:
    """Return the layer in a site such as `layers.3`."""
    found = re.search(r"(\d+)$", site)
    return int(found[1]) if found else None


def _module(scheme: Record, done: Sequence[Record]) -> Module:
    """Return a module from its scheme and the records of the methods that worked on it."""
    layer = note(scheme, "layer")
    errors = [value(record, "output_error") for record in done]
    return Module(
        name=scheme.site,
        role=note(scheme, "role", scheme.site),
        layer=int(layer) if layer.isdecimal() else None,
        format=note(scheme, "format"),
        activation=note(scheme, "activation"),
        reason=note(scheme, "reason"),
        bits=value(scheme, "bits_per_weight") or nan,
        nbytes=value(scheme, "bytes") or 0.0,
        method=" + ".join(dict.fromkeys(record.step for record in done)),
        error=next((error for error in reversed(errors) if error is not None), None),
        fallback=next((r.fallback for r in reversed(done) if r.fallback), None),
    )
