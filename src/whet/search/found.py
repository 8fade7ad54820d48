"""A choice as a recipe, which makes the same model without a search."""

from collections.abc import Iterable, Sequence

from whet.formats.keeping import USUAL
from whet.methods.quantize.kv_cache import KvCache
from whet.model.site import Site
from whet.recipe.recipe import Calibration, Recipe, Step
from whet.search.option import Choice, Menus, chosen
from whet.search.unit import Level, Unit


def recipe_of(
    menus: Menus,
    choice: Choice,
    calibration: Calibration,
    seed: int,
    description: str,
    before: Sequence[Step] = (),
    after: Sequence[Step] = (),
    *,
    brief: bool = False,
    draft: tuple[Step, ...] = (),
) -> Recipe:
    """Return the recipe of a choice: a step for each level, with the sites that it is for.

    A recipe has a step at least: where everything stays, one that changes no number. With `brief`,
    methods do without the rounds that gain little. `draft` makes a model that guesses.
    Law: every linear is selected by the one step of its unit's level, or by none if it stays.
    """
    taken: dict[Level, list[Unit]] = {}
    for unit, option in chosen(menus, choice):
        if option.level.format is not None:
            taken.setdefault(option.level, []).append(unit)
    everything = [site for menu in menus for site in menu.unit.sites]
    steps = tuple(
        Step(level.use(brief=brief), patterns([s for u in units for s in u.sites], everything))
        for level, units in sorted(taken.items(), key=lambda pair: str(pair[0]))
    )
    every = (*before, *steps, *after) or (Step(KvCache(keep=USUAL)),)
    return Recipe("found", every, description, calibration, seed=seed, draft=draft)


def patterns(mine: Sequence[Site], everything: Iterable[Site]) -> tuple[str, ...]:
    """Return patterns that select some sites and no others: a role alone where all are meant."""
    left = {site.module for site in everything} - {site.module for site in mine}
    found: dict[str, None] = {}
    rest = {site.role for site in everything if site.module in left}
    for site in mine:
        role = _starred(site.role)
        alone = site.layer is None or not any(_starred(other) == role for other in rest)
        found[role if alone else f"layers.{site.layer}.{role}"] = None
    return tuple(found)


def _starred(role: str) -> str:
    """Return a role for all experts of a block."""
    return ".".join("*" if part.isdigit() else part for part in role.split("."))
