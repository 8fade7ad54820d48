"""What a search leaves as evidence: records of the question, the choice, and what was not chosen."""

from collections.abc import Iterator, Mapping
from itertools import groupby

from whet.base.machine import processor
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.search.allocate import Cap, allocate
from whet.search.choose import caps_of, predicted
from whet.search.limits import MEASURES
from whet.search.option import Menu, Option, counted, total, uniform
from whet.search.outcome import Outcome
from whet.search.recover import Recovery

STANDARD = ("int4-g64", "int4-g32", "int3-g64-affine")  # levels that sensitivities are told of
POINTS = 16  # of the frontier
NEARLY = 0.002  # share by which a point may lie above the best of its size
NEAR = 0.03  # share of a limit within which it counts as binding
BY_SUM = "sum over the units of what each adds alone"
TOGETHER = "the choice put together from the sweep, on held-out text"
BUILT = "less what compressing in order makes good, and what rounding in the engine adds"


def records(outcome: Outcome) -> Iterator[Record]:
    """Yield all records of a search."""
    yield _search(outcome)
    yield from _limits(outcome)
    yield from _units(outcome)
    yield from _options(outcome)
    yield from _rejected(outcome)
    yield from outcome.trials.records()
    yield from _frontier(outcome)
    yield from _uniform(outcome)
    yield from _phases(outcome)
    for one in outcome.generations:
        facts = {
            "kl": Quantity(one.kl, "nat", f"best so far; {TOGETHER}"),
            "evaluations": Quantity(one.judged, "1", "choices judged so far"),
        }
        yield Record("generation", str(one.number), facts)
    yield from outcome.seen.records


def _phases(outcome: Outcome) -> Iterator[Record]:
    """Yield the phases of the search in order, with the time planned for each and the time it took."""
    for phase in outcome.phases:
        facts = {
            "planned": Quantity(phase.planned_s, "s", "estimated when the phase began"),
            "seconds": Quantity(phase.spent_s, "s", "wall time"),
        }
        yield Record("phase", phase.name, facts, notes={"effort": phase.effort})


def _search(outcome: Outcome) -> Record:
    """Return what was asked, how much was tried, and how well it was predicted."""
    stand, ask = outcome.stand, outcome.ask
    judged = sum(one.judged for one in outcome.generations[-1:])
    facts = {
        "seconds": Quantity(outcome.seconds, "s", "wall time of the search"),
        "units": Quantity(len(stand.menus), "1", "linears that get a level together"),
        "options": Quantity(sum(len(menu.options) for menu in stand.menus), "1", "over all units"),
        "evaluations": Quantity(judged, "1", "choices judged by the whole model"),
        "gap": Quantity(
            outcome.first.gap, "1", "how far the first choice may be from the best sum"
        ),
        "kl_additive": Quantity(total(stand.menus, outcome.choice, "kl"), "nat", BY_SUM),
        "kl_assembled": Quantity(outcome.assembled, "nat", TOGETHER),
    }
    if outcome.recovery is not None:
        facts |= _recovery(outcome.recovery)
    for name, value in outcome.expected.items():
        how = f"{TOGETHER}, {BUILT}" if name == "kl" else "predicted before it was built"
        facts[f"{name}_predicted"] = Quantity(value, MEASURES[name], how)
    for name, value in outcome.seen.facts.items():
        facts[f"{name}_measured"] = Quantity(value, MEASURES[name], "of the folder, as published")
    notes = {
        "objective": ask.objective,
        "source": ask.folder.path.name,
        "text": ask.limits.text,
        "machine": ask.target or processor()[0],
        "structure": stand.name,
        "binding": " ".join(sorted(_binding(outcome))),
    }
    if outcome.recovery is not None:
        notes["recovery"] = "kept" if outcome.recovery.kept else "left out"
    return Record("search", "", facts, notes=notes)


def _recovery(done: Recovery) -> dict[str, Quantity]:
    """Return what training has made of the folder."""
    return {
        "recovery_tokens": Quantity(done.tokens, "1", "that the folder was trained on"),
        "kl_untrained": Quantity(done.before, "nat", "of the folder, before training"),
        "kl_trained": Quantity(done.after, "nat", "of the folder, after training"),
    }


def _limits(outcome: Outcome) -> Iterator[Record]:
    """Yield every limit with what was predicted, what was measured, and what is left of it."""
    binding = _binding(outcome)
    for limit in outcome.ask.limits:
        facts = {"limit": Quantity(limit.value, limit.unit, "as asked for")}
        known = outcome.expected.get(limit.name)
        if known is not None:
            facts["predicted"] = Quantity(known, limit.unit, "before the folder was built")
        found = outcome.seen.facts.get(limit.name, known)
        if limit.name in outcome.seen.facts:
            facts["measured"] = Quantity(found or 0.0, limit.unit, "of the folder, as published")
        if found is not None:
            slack = limit.slack(found)
            facts["slack"] = Quantity(slack, "1", "share of the limit that is left")
        told = {"kind": limit.kind, "text": limit.text}
        told["binding"] = "yes" if limit.name in binding else "no"
        yield Record("limit", limit.name, facts, notes=told)


def _binding(outcome: Outcome) -> set[str]:
    """Return the limits that are all but used up."""
    found: set[str] = set()
    for limit in outcome.ask.limits:
        value = outcome.seen.facts.get(limit.name, outcome.expected.get(limit.name))
        if value is not None and limit.slack(value) < NEAR:
            found.add(limit.name)
    return found


def _units(outcome: Outcome) -> Iterator[Record]:
    """Yield every unit with its level, and how much it would lose at a standard one."""
    for menu in outcome.stand.menus:
        option = menu.options[outcome.choice[menu.unit.name]]
        unit, standard = menu.unit, _standard(menu)
        facts = {"weights": Quantity(unit.weights, "1", "numbers")} | _costs(option)
        notes = {
            "layer": "" if unit.layer is None else str(unit.layer),
            "role": unit.role,
            "modules": " ".join(site.module for site in unit.sites),
            "level": str(option.level),
            "method": option.level.method,
        }
        if standard is not None:
            facts["sensitivity"] = Quantity(standard.kl, "nat", f"what {standard.level} adds here")
            notes["standard"] = str(standard.level)
        yield Record("unit", unit.name, facts, notes=notes)


def _standard(menu: Menu) -> Option | None:
    """Return the option that sensitivities are told of; of a table the one nearest to 4 bits."""
    named = {str(option.level): option for option in menu}
    found = next((named[name] for name in STANDARD if name in named), None)
    if found is not None or len(menu.options) < 2:
        return found
    bits = 4 * menu.unit.weights / 8
    return min(menu.options[1:], key=lambda option: abs(option.nbytes - bits))


def _costs(option: Option) -> dict[str, Quantity]:
    facts = {
        "kl": Quantity(option.kl, "nat", "what it adds alone, to second order"),
        "bytes": Quantity(option.nbytes, "byte", "as stored"),
    }
    if option.decode is not None:
        facts["decode_seconds"] = Quantity(option.decode, "s", "for one token")
    if option.prefill is not None:
        facts["prefill_seconds"] = Quantity(option.prefill, "s", "for the prompt of the limit")
    return facts


def _options(outcome: Outcome) -> Iterator[Record]:
    """Yield every option of every unit."""
    for menu in outcome.stand.menus:
        for number, option in enumerate(menu):
            error = Quantity(option.error, "1", "‖ΔW X‖² ÷ ‖W X‖²")
            chosen = "yes" if outcome.choice[menu.unit.name] == number else "no"
            notes = {"level": str(option.level), "method": option.level.method, "chosen": chosen}
            yield Record("option", menu.unit.name, _costs(option) | {"error": error}, notes=notes)


def _rejected(outcome: Outcome) -> Iterator[Record]:
    """Yield what was never offered, and why."""
    every = sorted(outcome.stand.rejected, key=lambda one: (one.level, one.reason))
    for (level, reason), group in groupby(every, key=lambda one: (one.level, one.reason)):
        mine = list(group)
        facts = {"units": Quantity(len(mine), "1", "that it concerns")}
        site = mine[0].unit if len(mine) == 1 else ""
        yield Record("rejected", site, facts, notes={"level": level, "reason": reason})


def _frontier(outcome: Outcome) -> Iterator[Record]:
    """Yield the best choices by single losses at sizes around the chosen one."""
    stand, limits, belief = outcome.stand, outcome.ask.limits, outcome.belief
    others = [cap for cap in caps_of(stand, limits, belief) if cap.name not in {"nbytes", "kl"}]
    least = float(sum(min(option.nbytes for option in menu) for menu in stand.menus))
    most = float(sum(max(option.nbytes for option in menu) for menu in stand.menus))
    seen: set[int] = set()
    for size in _spread(least, most, total(stand.menus, outcome.choice, "nbytes")):
        found = allocate(stand.menus, "kl", [*others, Cap("nbytes", size)], NEARLY)
        if found is None or (nbytes := round(total(stand.menus, found.choice, "nbytes"))) in seen:
            continue
        seen.add(nbytes)
        alone = stand.lost + found.value
        kl = belief.built(alone * belief.together)
        facts = predicted(stand, found.choice, kl, limits, belief)
        kept = {name: facts[name] for name in ("size", "kl", "decode") if name in facts}
        told = {
            n: Quantity(v, MEASURES[n], "predicted from single losses") for n, v in kept.items()
        }
        notes = {"levels": counted(stand.menus, found.choice), "trial": stand.name}
        yield Record("point", "", told, notes=notes)


def _spread(least: float, most: float, chosen: float) -> list[float]:
    """Return sizes from least to most, closer to each other around the chosen one [byte]."""
    grid = [least * (most / least) ** (step / (POINTS - 1)) for step in range(POINTS)]
    near = [chosen * (1 + step / 50) for step in (-4, -2, -1, 0, 1, 2, 4)]
    return sorted(size for size in {*grid, *near} if least <= size <= most * 1.000001)


def _uniform(outcome: Outcome) -> Iterator[Record]:
    """Yield what one level for all linears of the blocks would give."""
    stand, belief = outcome.stand, outcome.belief
    names = dict.fromkeys(str(option.level) for menu in stand.menus for option in menu)
    for name in names:
        choice = uniform(stand.menus, name)
        if choice is None:
            continue
        alone = stand.lost + total(stand.menus, choice, "kl")
        kl = belief.built(alone * belief.together)
        facts = predicted(stand, choice, kl, outcome.ask.limits, belief)
        kept: Mapping[str, float] = {n: facts[n] for n in ("size", "kl", "decode") if n in facts}
        told = {
            n: Quantity(v, MEASURES[n], "predicted from single losses") for n, v in kept.items()
        }
        yield Record("uniform", name, told)
