"""The choice in plain words: what binds, who got more bits and why, and what was not worth it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from whet.report import words as say
from whet.report.evidence import note, value
from whet.report.search import frontier
from whet.report.search.found import Limit, Search, Unit, known
from whet.report.search.tables import NAMES, amount, speed

OBJECTIVES = {
    "quality": "the least damage",
    "speed": "the fastest generation",
    "size": "the smallest folder",
}
APART = 0.35  # [bit/weight] from the mean before a kind of unit is worth a sentence
MUCH = 1.4  # times the mean sensitivity of a weight
NAMED = 4  # names in one sentence


def paragraphs(search: Search) -> tuple[str, ...]:
    """Return the account: what was asked, what came out, who got what, what was left aside."""
    told = (
        (_asked(search), _tried(search)),
        (_outcome(search), _recovered(search), *_bound(search), _uniform(search)),
        tuple(_bits(search)),
        (_unchosen(search), _turned_down(search)),
        (*_next(search), _proof(search), _interaction(search)),
    )
    joined = (" ".join(sentence for sentence in part if sentence) for part in told)
    return tuple(paragraph for paragraph in joined if paragraph)


def headline(search: Search) -> str:
    """Return the choice in one sentence, for a model card."""
    levels = Counter(unit.level for unit in search.units if unit.level)
    asked, most = _asked(search), levels.most_common(3)
    told = say.listing([f"{level} in {say.plural(many, 'unit')}" for level, many in most])
    rest = len(levels) - len(most)
    also = f" and {say.plural(rest, 'more level')} elsewhere" if rest > 0 else ""
    return f"{asked} It took {told}{also}." if told else asked


def _asked(search: Search) -> str:
    """Return what was searched for."""
    aim = note(search.head, "objective", "quality")
    limits = note(search.head, "text") or ", ".join(limit.text for limit in search.limits)
    under = f" under {limits}" if limits else " without limits"
    machine = f" on {told}" if (told := note(search.head, "machine")) else ""
    return f"The search looked for {OBJECTIVES.get(aim, aim)}{under}{machine}."


def _tried(search: Search) -> str:
    """Return how much was tried, and in what time."""
    facts = search.head.facts
    units = value(search.head, "units") or float(len(search.units))
    told = [f"chose among {say.count(facts['options'].value)} levels"] if "options" in facts else []
    told[:1] = [f"{told[0]} of {say.plural(units, 'unit')}"] if told and units else told
    if search.trials:
        failed = sum(note(t.record, "state") in {"failed", "infeasible"} for t in search.trials)
        also = f" ({failed} of them came to nothing)" if failed else ""
        told.append(f"tried {say.plural(len(search.trials), 'structure')}{also}")
    if evaluations := known(value(search.head, "evaluations")):
        told.append(f"evaluated {say.plural(evaluations, 'whole model')}")
    spent = known(value(search.head, "seconds"))
    within = f", in {say.duration(spent)}" if spent else ""
    return f"It {say.listing(told)}{within}." if told else ""


def _bound(search: Search) -> Iterable[str]:
    """Yield which limits decided, and which had room."""
    missed = [limit for limit in search.limits if limit.slack is not None and limit.slack < 0]
    tight = [limit for limit in search.limits if limit.binding and limit not in missed]
    loose = [limit for limit in search.limits if limit not in missed and limit not in tight]
    if missed:
        yield f"Not met: {say.listing([_left(limit) for limit in missed])}."
    if tight:
        verb = "binds" if len(tight) == 1 else "bind"
        yield f"What {verb}: {say.listing([_left(limit) for limit in tight])}."
    if loose:
        yield f"With room to spare: {say.listing([_left(limit) for limit in loose])}."


def _left(limit: Limit) -> str:
    """Return a limit with what is left of it."""
    name = NAMES.get(limit.name, limit.name)
    if limit.slack is None:
        return name
    side = "under" if limit.most == (limit.slack >= 0) else "above"
    return f"{name} ({say.percent(abs(limit.slack), 2)} {side} its limit)"


def _outcome(search: Search) -> str:
    """Return what came out."""
    size, kl = search.outcome("size"), search.outcome("kl")
    bits, decode = search.outcome("bpw"), search.outcome("decode")
    told = [say.size(size)] if size else []
    told += [f"{say.significant(bits)} bit per weight"] if bits else []
    told += [f"KL {say.significant(kl)} nat"] if kl else []
    told += [speed(decode)] if decode else []
    shape = note(search.head, "structure", "as it is")
    aside = "" if shape == "as it is" else f" ({shape})"
    return f"The result{aside}: {', '.join(told)}." if told else ""


def _recovered(search: Search) -> str:
    """Return what training in the time that was left has done."""
    tokens = known(value(search.head, "recovery_tokens"))
    before, after = (value(search.head, f"kl_{n}") for n in ("untrained", "trained"))
    if not tokens or before is None or after is None:
        return ""
    kept = note(search.head, "recovery") == "kept"
    end = "" if kept else ", so the folder is the one before"
    return (
        f"In the time that was left it was trained on {say.short_count(tokens)} tokens, which took "
        f"the KL from {say.significant(before)} to {say.significant(after)} nat{end}."
    )


def _uniform(search: Search) -> str:
    """Return how one level everywhere compares, at no larger a size."""
    found, size = frontier.nearest_uniform(search), frontier.place(search)
    kl = None if size is None else frontier.between(frontier.curve(search), size)
    if found is None or kl is None or found[0].size is None:
        return ""
    mark, theirs = found
    return (
        f"The best uniform level that fits, {mark.name}, has {say.size(found[0].size)} and "
        f"a predicted KL of {say.significant(theirs)} nat; the mixture has "
        f"{say.significant(kl / theirs, 2)} × of that."
    )


def _proof(search: Search) -> str:
    """Return what is proven of the allocation."""
    gap = value(search.head, "gap")
    if gap is None:
        return ""
    if gap <= 0:
        return "For these costs the allocation is the best there is, proven."
    return f"For these costs no allocation is more than {say.percent(gap, 2)} better, proven."


@dataclass(frozen=True, slots=True)
class Kind:
    """Units of one kind in all layers: the mean of their bits, and how sensitive a weight is."""

    name: str
    bits: float  # [bit/weight]
    per_weight: float | None  # sensitivity against the mean of the model


def kinds(search: Search) -> tuple[Kind, ...]:
    """Return the kinds of units, with the mean of the whole model for scale (sensitivity 1)."""
    whole = _density(search.units)
    groups: dict[str, list[Unit]] = {}
    for unit in search.units:
        groups.setdefault(unit.column, []).append(unit)
    found: list[Kind] = []
    for name, group in groups.items():
        if bits := _mean_bits(group):
            own = _density(group)
            found.append(Kind(name, bits, own / whole if own and whole else None))
    return tuple(found)


def _mean_bits(units: Sequence[Unit]) -> float | None:
    """Return the mean of the bits over all weights."""
    known_units = [unit for unit in units if unit.nbytes and unit.weights]
    weights = fsum(unit.weights or 0.0 for unit in known_units)
    return 8 * fsum(unit.nbytes or 0.0 for unit in known_units) / weights if weights else None


def _density(units: Sequence[Unit]) -> float | None:
    """Return the KL at the standard level for each weight [nat]."""
    both = [unit for unit in units if unit.sensitivity and unit.weights]
    weights = fsum(unit.weights or 0.0 for unit in both)
    return fsum(unit.sensitivity or 0.0 for unit in both) / weights if weights else None


def _bits(search: Search) -> Iterable[str]:
    """Yield which kinds and which single units got more bits, which less, and why."""
    mean = _mean_bits(search.units)
    if mean is None:
        return
    found = sorted(kinds(search), key=lambda kind: -kind.bits)
    more = [kind for kind in found if kind.bits - mean > APART]
    less = [kind for kind in reversed(found) if mean - kind.bits > APART]
    if not more and not less:
        yield f"No kind of unit is far from the mean of {say.significant(mean)} bit per weight."
    if more:
        yield f"More bits went to {say.listing([_kind(kind) for kind in more[:NAMED]])}."
    if less:
        yield f"Fewer went to {say.listing([_kind(kind) for kind in less[:NAMED]])}."
    yield from _extremes(search, mean)


def _kind(kind: Kind) -> str:
    """Return a kind of unit with its bits and how sensitive it is."""
    told = f"{kind.name} ({say.significant(kind.bits)} bit per weight"
    if kind.per_weight is None or 1 / MUCH < kind.per_weight < MUCH:
        return f"{told})"
    return f"{told}; a weight there matters {say.significant(kind.per_weight, 2)} × the mean)"


def _extremes(search: Search, mean: float) -> Iterable[str]:
    """Yield the single units that lie furthest from the others of their kind."""
    usual = {kind.name: kind.bits for kind in kinds(search)}
    apart = [
        (unit, unit.bits - usual.get(unit.column, mean))
        for unit in search.units
        if unit.bits and unit.layer is not None
    ]
    whole = _density(search.units)
    for sign, verb in ((1, "more"), (-1, "less")):
        far = sorted((sign * by, unit.site, unit) for unit, by in apart if sign * by > 2 * APART)
        names = [_single(unit, whole) for _, _, unit in far[::-1][:NAMED]]
        if names:
            yield f"Given {verb} than others of their kind: {say.listing(names)}."


def _single(unit: Unit, whole: float | None) -> str:
    """Return a unit with its level and how sensitive a weight of it is."""
    own = _density([unit])
    if own is None or whole is None:
        return f"{unit.site} ({unit.level})"
    return f"{unit.site} ({unit.level}; {say.significant(own / whole, 2)} × the mean sensitivity)"


def _unchosen(search: Search) -> str:
    """Return which levels were offered and taken nowhere."""
    taken = {unit.level for unit in search.units}
    beaten: Counter[str] = Counter()
    offered: Counter[str] = Counter()
    for unit in search.units:
        for option in unit.options:
            offered[option.level] += 1
            beaten[option.level] += _beaten(unit, option.kl, option.nbytes)
    never = [level for level in offered if level not in taken]
    lost = [level for level in never if 2 * beaten[level] > offered[level]]
    dear = [level for level in never if level not in lost]
    told = [f"{_some(lost)}, for another level is better and no larger almost everywhere"] * any(
        lost
    )
    told += [f"{_some(dear)}, for the same bytes buy more elsewhere"] * any(dear)
    return f"Taken nowhere: {'; '.join(told)}." if told else ""


def _some(names: Sequence[str]) -> str:
    """Return the first names of many."""
    more = len(names) - NAMED
    return say.listing([*names[:NAMED], *([f"{say.count(more)} more"] if more > 0 else [])])


def _beaten(unit: Unit, kl: float | None, nbytes: float | None) -> bool:
    """Return whether another level of the unit is both better and no larger."""
    return kl is not None and nbytes is not None and any(
        o.kl is not None and o.nbytes is not None and o.kl < kl and o.nbytes <= nbytes
        for o in unit.options
    )  # fmt: skip


def _next(search: Search) -> Iterable[str]:
    """Yield what one step of size would buy, and cost."""
    for step in reversed(frontier.steps(search)):
        if abs(step.more) == (frontier.unit_of(frontier.place(search) or 1.0)):
            more = step.more > 0
            change = say.percent(abs(step.ratio - 1), 2)
            verb = "more would lower" if more else "less would raise"
            yield f"{say.trimmed(say.size(abs(step.more)))} {verb} the predicted KL by {change}."


def _interaction(search: Search) -> str:
    """Return whether the units' damages simply add up."""
    facts = search.head.facts
    summed, whole = (known(value(search.head, f"kl_{n}")) for n in ("additive", "assembled"))
    if not summed or not whole:
        return ""
    return (
        f"The damages of the units add up to {amount(facts['kl_additive'])}; put together, "
        f"the model has {amount(facts['kl_assembled'])} on held-out text, "
        f"{say.significant(whole / summed, 3)} × as much."
    )


def _turned_down(search: Search) -> str:
    """Return how many levels were not offered, and the reasons."""
    reasons = Counter(note(r, "reason", "no reason recorded") for r in search.rejected)
    if not reasons:
        return ""
    told = "; ".join(reason for reason, _ in reasons.most_common(NAMED))
    were = "was" if len(search.rejected) == 1 else "were"
    return f"{say.plural(len(search.rejected), 'level')} {were} not offered at all: {told}."
