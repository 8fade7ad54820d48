"""From limits to a choice: what the limits leave for the units, and the exact best within that."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import expm1, log1p

from whet.base.errors import QualityError
from whet.measure.memory import NEW as WRITTEN
from whet.measure.speed import NEW
from whet.search.allocate import Allocation, Cap, allocate
from whet.search.ask import Ask
from whet.search.limits import Limit, Limits
from whet.search.option import Choice, total
from whet.search.predict import Predictor
from whet.search.stand import Stand

GOALS = {"quality": "kl", "speed": "decode", "size": "nbytes"}
MARGIN = 1.02  # by which a limit is kept more closely after a folder has broken it
MILD = 0.1  # of the surprise of a KL divergence, at least
ROUNDS = 4  # times that a limit on quality is met more closely


@dataclass(frozen=True, slots=True)
class Belief:
    """What measurements have taught about predictions.

    `together`: KL divergence of a choice ÷ the sum of its single ones; `sequential`: the same of the
    model that is compressed layer after layer ÷ that of the choice put together; `floor`: what it has
    whatever is chosen, as the engine rounds [nat per token]; `surprise`: increase of the log-perplexity
    ÷ KL divergence; `decode`, `ttft`, `memory`: measured ÷ predicted; `header`: what a file has beside
    its tensors [byte].
    """

    together: float = 1.0
    sequential: float = 1.0
    floor: float = 0.0
    surprise: float = 1.0
    decode: float = 1.0
    ttft: float = 1.0
    memory: float = 1.0
    header: int = 0

    def built(self, kl: float) -> float:
        """Return the KL divergence of the folder of a choice that has `kl` put together [nat].

        Law: 0 for a model that stays as it is, of which the engine rounds what it does of the original.
        """
        return self.floor + self.sequential * kl if kl else 0.0

    def assembled(self, kl: float) -> float:
        """Return what a choice may have put together, so that its folder has no more than `kl` [nat].

        Law: `assembled(built(kl)) == kl`.
        """
        return (kl - self.floor) / self.sequential


def caps_of(stand: Stand, limits: Limits, belief: Belief) -> list[Cap]:
    """Return what the limits leave for the units' sums."""
    found: list[Cap] = []
    if limits.size is not None:
        found.append(Cap("nbytes", limits.size.value - stand.fixed - belief.header))
    if limits.bpw is not None:
        found.append(Cap("nbytes", limits.bpw.value * stand.weights / 8, "blocks"))
    quality = (limit for limit in (limits.kl, limits.ppl) if limit is not None)
    found += [Cap("kl", kl_within(one, belief) / belief.together - stand.lost) for one in quality]
    return found + _timed(stand, limits, belief)


def kl_within(limit: Limit, belief: Belief) -> float:
    """Return the KL divergence, as put together, that keeps a limit on quality [nat]."""
    allowed = limit.value if limit.name == "kl" else log1p(limit.value) / belief.surprise
    return belief.assembled(allowed)


def _timed(stand: Stand, limits: Limits, belief: Belief) -> list[Cap]:
    """Return what limits on speed and memory leave."""
    known = stand.predictor
    if known is None:
        return []
    found: list[Cap] = []
    if limits.decode is not None:
        found.append(Cap("decode", belief.decode / limits.decode.value - _between(known, limits)))
    if limits.ttft is not None:
        allowed = limits.ttft.value / belief.ttft
        found.append(Cap("prefill", allowed - known.rest_first(limits.prompt)))
    if limits.memory is not None:
        found.append(Cap("memory", limits.memory.value / belief.memory - _around(known, limits)))
    return found


def _between(known: Predictor, limits: Limits) -> float:
    """Return what tokens take besides linears that are written after the prompt, as timed [s]."""
    return known.rest_decode(limits.prompt + NEW // 2)


def _around(known: Predictor, limits: Limits) -> int:
    """Return what a process holds besides weights, as measured [byte]."""
    return known.rest_memory(limits.context + WRITTEN)


def best(stand: Stand, ask: Ask, belief: Belief) -> Allocation | None:
    """Return the best choice within the limits, by sums of single costs; None if there is none."""
    caps = caps_of(stand, ask.limits, belief)
    if any(cap.limit < 0 for cap in caps):
        return None
    return allocate(stand.menus, GOALS[ask.objective], caps)


def settled(stand: Stand, ask: Ask, belief: Belief) -> tuple[Allocation | None, Belief, float]:
    """Return the best choice for limits on quality as the whole model keeps them.

    The sum of single losses is not the loss of all; where quality is limited, the choice is made
    again with what the last one has shown, until the limit is kept and not missed by much. Returns
    the choice, what was learned, and its KL divergence.
    """
    limited = [limit for limit in (ask.limits.kl, ask.limits.ppl) if limit is not None]
    found, kl = best(stand, ask, belief), 0.0
    for _ in range(ROUNDS):
        if found is None:
            return None, belief, kl
        kl = stand.kl(found.choice)
        alone = stand.lost + total(stand.menus, found.choice, "kl")
        belief = replace(belief, together=kl / alone if alone > 0 and kl > 0 else 1.0)
        allowed = min((kl_within(limit, belief) for limit in limited), default=kl)
        if 0.97 * allowed <= kl <= allowed or not limited:
            break
        found = best(stand, ask, belief)
    return found, belief, kl


def predicted(
    stand: Stand, choice: Choice, kl: float, limits: Limits, belief: Belief
) -> dict[str, float]:
    """Return what the whole model is predicted to have, by the name of the limit on it."""
    nbytes = total(stand.menus, choice, "nbytes")
    inside = [menu for menu in stand.menus if menu.unit.layer is not None]
    found = {
        "kl": kl,
        "size": stand.fixed + belief.header + nbytes,
        "bpw": 8 * total(inside, choice, "nbytes") / max(stand.weights, 1),
    }
    known = stand.predictor
    if known is None:
        return found
    decode = total(stand.menus, choice, "decode") + _between(known, limits)
    prefill = total(stand.menus, choice, "prefill") + known.rest_first(limits.prompt)
    return found | {
        "decode": belief.decode / decode,
        "ttft": prefill * belief.ttft,
        "memory": (total(stand.menus, choice, "memory") + _around(known, limits)) * belief.memory,
    }


def broken(limits: Limits, facts: Mapping[str, float], belief: Belief) -> dict[str, float]:
    """Return by what share each limit is broken [1]; 0 and below are kept."""
    found: dict[str, float] = {}
    for limit in limits:
        if limit.name == "ppl" and "ppl" not in facts:
            found["ppl"] = -limit.slack(_increase(facts["kl"], belief))
        elif limit.name in facts:
            found[limit.name] = -limit.slack(facts[limit.name])
    return found


def _increase(kl: float, belief: Belief) -> float:
    """Return the relative increase of the perplexity that a KL divergence stands for [1]."""
    return expm1(kl * belief.surprise)


def infeasible(stand: Stand, ask: Ask, belief: Belief) -> QualityError:
    """Return the error that says which limit cannot be kept, and the nearest point that can."""
    limits = list(ask.limits)
    nearest = [(limit, _least(stand, ask, limit, belief)) for limit in limits]
    known = [(limit, value) for limit, value in nearest if value is not None]
    told = "; ".join(
        f"with the other limits, {limit.name} can be {_shown(value, limit)} at "
        f"{'least' if limit.kind == 'max' else 'most'} ({limit.text})"
        for limit, value in known
    )
    lone = f"{limits[0].text} cannot be kept" if len(limits) == 1 else "no model keeps all limits"
    return QualityError(
        f"{lone}: {told or 'even without any one of them'}",
        "Loosen that limit, offer more levels (--levels), or allow smaller shapes (--structures).",
    )


def _least(stand: Stand, ask: Ask, limit: Limit, belief: Belief) -> float | None:
    """Return the nearest value of a limit at which the others can be kept."""
    others = replace(ask.limits, **{limit.name: None})
    caps = caps_of(stand, others, belief)
    goal = {"size": "nbytes", "bpw": "nbytes", "memory": "memory", "decode": "decode",
            "ttft": "prefill", "kl": "kl", "ppl": "kl"}[limit.name]  # fmt: skip
    found = None if any(cap.limit < 0 for cap in caps) else allocate(stand.menus, goal, caps)
    if found is None:
        return None
    kl = (stand.lost + total(stand.menus, found.choice, "kl")) * belief.together
    facts = predicted(stand, found.choice, belief.built(kl), ask.limits, belief)
    return facts.get(limit.name, _increase(facts["kl"], belief))


def reachable(stand: Stand, ask: Ask, belief: Belief, last: Choice) -> Belief:
    """Return a belief by which the limit on decode can be kept, where one folder's timing forbids it.

    Timings differ by some percent from moment to moment, and a limit may be near what the quickest
    levels give. Then what is tried next lies half way from the last choice to the quickest.
    """
    limit = ask.limits.decode
    quickest = None if limit is None else _least(stand, ask, limit, belief)
    if limit is None or quickest is None or quickest >= limit.value:
        return belief
    plain = predicted(stand, last, 0.0, ask.limits, Belief())["decode"]
    return replace(belief, decode=2 * limit.value / (plain + quickest / belief.decode))


def _shown(value: float, limit: Limit) -> str:
    if limit.unit == "byte":
        return f"{value / 1e6:,.3f} MB"
    return f"{value:.4g} {limit.unit}" if limit.unit != "1" else f"{value:.2%}"


def compared(belief: Belief, kl: float, real: float) -> Belief:
    """Return a belief by which a choice that has `kl` put together has `real` in its folder [nat].

    Compressing layer after layer makes good a part, and does not add to it: what is more is from
    rounding in the engine, as is most of what a folder loses whose weights are nearly exact.
    """
    return replace(belief, sequential=min(1.0, real / kl), floor=max(0.0, real - kl))


def learned(belief: Belief, expected: Mapping[str, float], seen: Mapping[str, float]) -> Belief:
    """Return a belief that explains what a folder was measured to have, and a little more."""
    kl, surprise = seen["kl"], belief.surprise
    if kl > 0 and "ppl" in seen:
        surprise = max(log1p(max(seen["ppl"], 0.0)) / kl, MILD)
    worse = MARGIN * max(1.0, kl / expected["kl"] if expected["kl"] else 1.0)
    changed = replace(
        belief,
        sequential=belief.sequential * worse,
        floor=belief.floor * worse,
        surprise=surprise,
    )
    if "decode" in seen and "decode" in expected:
        slower = min(1.0, seen["decode"] / expected["decode"])
        later = max(1.0, seen["ttft"] / expected["ttft"])
        changed = replace(
            changed,
            decode=belief.decode * slower / MARGIN,
            ttft=belief.ttft * later * MARGIN,
            memory=belief.memory * max(1.0, seen["memory"] / expected["memory"]) * MARGIN,
        )
    return changed


def missing_by(
    limits: Limits, seen: Mapping[str, float], over: Mapping[str, float]
) -> QualityError:
    """Return the error that says by how much the best folder that was built breaks limits."""
    told = "; ".join(
        f"{limit.name} is {_shown(seen[limit.name], limit)}, {over[limit.name]:.1%} beyond "
        f"{limit.text}"
        for limit in limits
        if over.get(limit.name, 0.0) > 0
    )
    return QualityError(
        f"the nearest model that was built breaks a limit: {told}",
        "Loosen that limit, or give the search more time.",
    )
