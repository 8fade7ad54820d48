"""Menus with numbers at random, small enough to try every choice."""

import random
from itertools import product

from whet.model.site import Site
from whet.search.option import Menu, Menus, Option, total
from whet.search.unit import Level, Unit, level

NAMES = ("int2-g64-affine", "int3-g64-affine", "int4-g64", "int8-channel")


def site(role: str, layer: int | None, tap: str = "mlp.in") -> Site:
    return Site(role, f"m.{layer}.{role}", (64, 64), "out", "hidden", tap, layer)


def menus(seed: int, count: int = 5, levels: int = 4) -> Menus:
    """Units in blocks, the last outside of them; more bytes never lose more."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        losses = sorted((chance.random() ** 3 for _ in range(levels - 1)), reverse=True)
        sizes = sorted(chance.randrange(100, 1000) for _ in range(levels))
        times = [chance.random() for _ in range(levels)]
        options = [Option(Level(), 0.0, sizes[-1], 0.0, sizes[-1], times[-1], times[-1])]
        options += [
            Option(level(name), kl, nbytes, 0.1, nbytes, seconds, seconds)
            for name, kl, nbytes, seconds in zip(NAMES, losses, sizes, times, strict=False)
        ]
        layer = None if number == count - 1 else number
        unit = Unit(f"u{number}", (site("head" if layer is None else "mlp.up", layer),))
        found.append(Menu(unit, tuple(options)))
    return found


def every_choice(of: Menus):
    names = [menu.unit.name for menu in of]
    for numbers in product(*(range(len(menu.options)) for menu in of)):
        yield dict(zip(names, numbers, strict=True))


def least(of: Menus, goal: str, keeps) -> float | None:
    """The best of all choices that keep the limits, by trying each."""
    values = [total(of, choice, goal) for choice in every_choice(of) if keeps(choice)]
    return min(values) if values else None
