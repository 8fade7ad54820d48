"""What folders on this machine teach about predicted speed and memory."""

from dataclasses import replace
from pathlib import Path

from whet.recipe.progress import Progress
from whet.search.ask import Ask, Carry
from whet.search.build import steady
from whet.search.choose import Belief, predicted
from whet.search.found import recipe_of
from whet.search.limits import Limits
from whet.search.option import Choice, Menu, Menus
from whet.search.stand import Stand

ROUNDING = ("", "gptq", "rtn")  # methods of levels that rounding to nearest writes too


def paced(stand: Stand, limits: Limits, choice: Choice, folder: Path, belief: Belief) -> Belief:
    """Return a belief that has seen how fast the folder of a choice is, and what memory it takes.

    A disturbed timing says less than the undisturbed ones of kernels, and is heeded only where there is
    no other and a limit depends on it.
    """
    plain = replace(belief, decode=1.0, ttft=1.0, memory=1.0)
    expected = predicted(stand, choice, 0.0, limits, plain)
    seen = steady(folder, limits, stand.cache)
    ratios = {name: value / expected[name] for name, value in seen.items()}
    return replace(belief, **ratios)


def shown(ask: Ask, stand: Stand, made: Path, carry: Carry, told: Progress) -> Belief:
    """Return what a folder of a shape teaches.

    It is the shape as it is; where speed is limited or wanted, `made`, at the quickest levels: what
    is chosen then will be nearer to them.
    """
    if not ask.limits.timed and ask.objective != "speed":
        whole = {menu.unit.name: 0 for menu in stand.menus}
        return paced(stand, ask.limits, whole, stand.folder.path, Belief())
    menus, choice = quickest(stand.menus)
    if not made.is_dir():
        described = f"{stand.name}, at the quickest levels"
        recipe = recipe_of(menus, choice, ask.calibration, ask.seed, described)
        carry(recipe, stand.folder, made, told)
    return paced(replace(stand, menus=menus), ask.limits, choice, made, Belief())


def quickest(menus: Menus) -> tuple[Menus, Choice]:
    """Return the level of each unit at which a token takes least, to be written by rounding to nearest.

    Speed does not depend on the numbers, so their loss does not matter.
    """
    found = [_rounded(menu) for menu in menus]
    choice = {
        menu.unit.name: min(range(len(menu.options)), key=lambda i: menu.options[i].decode or 0.0)
        for menu in found
    }
    return found, choice


def _rounded(menu: Menu) -> Menu:
    """Return a menu without the levels that need more than rounding."""
    kept = (option for option in menu.options if option.level.method in ROUNDING)
    return Menu(
        menu.unit,
        tuple(
            option if option.level.format is None
            else replace(option, level=replace(option.level, method="rtn"))
            for option in kept
        ),
    )  # fmt: skip
