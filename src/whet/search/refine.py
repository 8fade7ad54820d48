"""Better choices than a sum of single losses shows: evolution by what the whole model says.

Level switches that keep every cap, judged by the KL divergence on held-out text, on few tokens
first and on all for the best (EvoPress, arXiv:2410.14649, §3). Switches are drawn at random and those
that the sum of single losses likes best are tried, since it is right more often than not.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from whet.base.seed import stream_seed
from whet.search.allocate import Cap, spent, within
from whet.search.option import Choice, Menu, Menus, total

DRAWN, TRIED, KEPT = 48, 6, 2  # mutants of a generation: drawn, judged on few tokens, on all
PATIENCE = 8  # generations without a better one, after which it ends
SWITCHES = 3  # units that change upwards in one mutant, at most
Scope = Literal["few", "all"]  # tokens
Fitness = Callable[[Choice, Scope], float]  # -> KL divergence [nat]


@dataclass(frozen=True, slots=True)
class Generation:
    """The best choice so far, its KL divergence on all tokens, and how many choices were judged."""

    number: int
    choice: Choice
    kl: float
    judged: int


@dataclass(frozen=True, slots=True, eq=False)
class Evolution:
    """(1 + λ) evolution within caps. Law: every choice that is judged keeps every cap."""

    menus: Menus
    caps: Sequence[Cap]
    fitness: Fitness
    seed: int
    chance: random.Random = field(init=False)
    worth: Mapping[str, tuple[Menu, list[int]]] = field(
        init=False
    )  # of each unit: what may be taken

    def __post_init__(self) -> None:
        """Seed the switches; leave out options that others beat in loss and in all that is limited."""
        object.__setattr__(self, "chance", random.Random(stream_seed(self.seed, "switches")))
        limited = sorted({cap.name for cap in self.caps} - {"kl"}) or ["nbytes"]
        worth = {menu.unit.name: (menu, unbeaten(menu, ("kl", *limited))) for menu in self.menus}
        object.__setattr__(self, "worth", worth)

    def run(self, start: Choice, more: Callable[[], bool]) -> Iterator[Generation]:
        """Yield generation after generation while there is time. Law: `kl` never grows."""
        best, kl, judged = start, self.fitness(start, "all"), 1
        yield Generation(0, best, kl, judged)
        seen, idle, number = {_key(start)}, 0, 0
        while more() and idle < PATIENCE:
            number += 1
            mutants = self._mutants(best, seen)
            if not mutants:
                return
            few = sorted(mutants, key=lambda choice: self.fitness(choice, "few"))
            judged += len(mutants)
            idle += 1
            for choice in few[:KEPT]:
                found = self.fitness(choice, "all")
                judged += 1
                if found < kl:
                    best, kl, idle = choice, found, 0
            yield Generation(number, best, kl, judged)

    def _mutants(self, best: Choice, seen: set[tuple[int, ...]]) -> list[Choice]:
        """Return new neighbours within the caps, the most promising first."""
        found: list[Choice] = []
        for _ in range(DRAWN):
            mutant = self.mutant(best)
            if mutant is not None and _key(mutant) not in seen:
                seen.add(_key(mutant))
                found.append(mutant)
        found.sort(key=lambda choice: total(self.menus, choice, "kl"))
        seen.difference_update(_key(choice) for choice in found[TRIED:])
        return found[:TRIED]

    def mutant(self, choice: Choice) -> Choice | None:
        """Return a neighbour within the caps, or None where chance finds none.

        Some units get better levels; others get worse ones until every cap holds again; what is then
        left is spent.
        """
        changed = dict(choice)
        names = [menu.unit.name for menu in self.menus]
        for name in self.chance.sample(names, self.chance.randint(1, min(SWITCHES, len(names)))):
            self._step(changed, name, better=True)
        for name in self.chance.sample(names, len(names)):
            if within(self.menus, changed, self.caps):
                break
            self._step(changed, name, better=False)
        if not within(self.menus, changed, self.caps):
            return None
        self._spend(changed, names)
        return changed

    def _step(self, choice: dict[str, int], name: str, *, better: bool) -> None:
        """Move a unit one level up or down in quality."""
        ladder = self._ladder(name, choice[name])
        place = ladder.index(choice[name]) + (1 if better else -1)
        if 0 <= place < len(ladder):
            choice[name] = ladder[place]

    def _spend(self, choice: dict[str, int], names: list[str]) -> None:
        """Use what the caps leave, unit by unit in random order."""
        for name in self.chance.sample(names, len(names)):
            before = choice[name]
            self._step(choice, name, better=True)
            if not within(self.menus, choice, self.caps):
                choice[name] = before

    def _ladder(self, name: str, taken: int) -> list[int]:
        """Return the options of a unit that are worth taking, worst first; what is `taken` is among them."""
        menu, worth = self.worth[name]
        return sorted({*worth, taken}, key=lambda one: (-menu.options[one].kl, one))


def unbeaten(menu: Menu, names: Sequence[str]) -> list[int]:
    """Return the options than which no other is as good in all costs, and better or earlier."""
    costs = [tuple(float(getattr(one, name) or 0.0) for name in names) for one in menu]
    numbered = list(enumerate(costs))

    def beats(other: tuple[int, tuple[float, ...]], one: tuple[int, tuple[float, ...]]) -> bool:
        as_good = all(a <= b for a, b in zip(other[1], one[1], strict=True))
        return as_good and (other[1] != one[1] or other[0] < one[0])

    return [one[0] for one in numbered if not any(beats(other, one) for other in numbered)]


def _key(choice: Choice) -> tuple[int, ...]:
    return tuple(choice.values())


def left(menus: Menus, choice: Choice, caps: Sequence[Cap]) -> dict[str, float]:
    """Return what a choice leaves of each cap, as a share of it [1]."""
    return {cap.name: 1 - spent(menus, choice, cap) / cap.limit for cap in caps if cap.limit}
