"""What a unit may become, with what that costs: the values that everything after the sweep works on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from whet.search.unit import Level, Unit

Choice = Mapping[str, int]  # unit -> number of its option


@dataclass(frozen=True, slots=True)
class Option:
    """A unit at a level.

    `kl`: what it adds to the KL divergence [nat per token], as far as one unit alone can tell;
    `error`: relative square of what it does to the unit's outputs [1]; `nbytes`: as stored, and
    `memory` as kernels read it [byte]; `decode`, `prefill`: time of one token and of a prompt [s],
    None where it is not known.
    """

    level: Level
    kl: float
    nbytes: int
    error: float = 0.0
    memory: int = 0
    decode: float | None = None
    prefill: float | None = None


@dataclass(frozen=True, slots=True)
class Menu:
    """A unit and its options; the first leaves it as it is."""

    unit: Unit
    options: tuple[Option, ...]

    def __iter__(self) -> Iterator[Option]:
        """Iterate over the options."""
        return iter(self.options)


Menus = Sequence[Menu]


def total(menus: Menus, choice: Choice, name: str) -> float:
    """Return the sum of an attribute of the chosen options."""
    return sum(float(getattr(menu.options[choice[menu.unit.name]], name) or 0.0) for menu in menus)


def chosen(menus: Menus, choice: Choice) -> Iterator[tuple[Unit, Option]]:
    """Yield every unit with the option that is taken."""
    for menu in menus:
        yield menu.unit, menu.options[choice[menu.unit.name]]


def uniform(menus: Menus, name: str) -> dict[str, int] | None:
    """Return the choice of one level for every unit in a block, the others as they are.

    None where a unit is not offered it.
    """
    choice: dict[str, int] = {}
    for menu in menus:
        if menu.unit.layer is None:
            choice[menu.unit.name] = 0
            continue
        found = [i for i, option in enumerate(menu) if str(option.level) == name]
        if not found:
            return None
        choice[menu.unit.name] = found[0]
    return choice


def counted(menus: Menus, choice: Choice) -> str:
    """Return how often each level is taken: "int4-g64 ×12, int3-g64-affine ×20"."""
    names = [str(option.level) for _, option in chosen(menus, choice)]
    return ", ".join(f"{name} ×{names.count(name)}" for name in sorted(set(names)))


CLEARLY = 0.9  # of the loss of a level, below which another beats it


def beaten(menus: Menus) -> dict[str, str]:
    """Return the levels that another one beats in every unit, with the reason.

    The other is no larger, no slower, and loses clearly less.
    """
    shared = [{str(option.level): option for option in menu.options[1:]} for menu in menus]
    names = [name for name in shared[0] if all(name in each for each in shared)] if shared else []
    found: dict[str, str] = {}
    for name in names:
        for other in names:
            if other not in found and all(_beats(each[other], each[name]) for each in shared):
                found[name] = (
                    f"{other} is no larger and no slower, and loses less in the first block"
                )
                break
    return found


def off_hull(menus: Menus) -> dict[str, str]:
    """Return the levels above the convex hull of size and loss in every unit, with the reason.

    A mixture of two other levels, in this unit and others like it, is as small and loses clearly less.
    """
    useful: dict[str, bool] = {}
    for menu in menus:
        for option in menu.options[1:]:
            name = str(option.level)
            useful[name] = useful.get(name, False) or not _mixed(option, menu.options)
    reason = "mixtures of two other levels are as small and lose less in every block so far"
    return {name: reason for name, kept in useful.items() if not kept}


def _mixed(option: Option, others: Sequence[Option]) -> bool:
    """Return whether a mixture of two options has the size of one and clearly less loss."""
    smaller = [one for one in others if one.nbytes <= option.nbytes and one is not option]
    larger = [one for one in others if one.nbytes > option.nbytes]
    least = min((one.kl for one in smaller if one.nbytes == option.nbytes), default=inf)
    for low in smaller:
        for high in larger:
            share = (option.nbytes - low.nbytes) / (high.nbytes - low.nbytes)
            least = min(least, low.kl + share * (high.kl - low.kl))
    return least < CLEARLY * option.kl


def _beats(one: Option, other: Option) -> bool:
    """Return whether an option is better than another in every way."""
    slower = any(
        (getattr(one, name) or 0.0) > (getattr(other, name) or 0.0)
        for name in ("nbytes", "memory", "decode", "prefill")
    )
    return not slower and one.kl < CLEARLY * other.kl
