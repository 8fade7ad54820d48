"""A choice as a recipe, which makes the same model without a search."""

from collections.abc import Iterable, Sequence

from whet.formats.activation import Activation
from whet.formats.keeping import USUAL
from whet.methods.quantize.activations import Activations
from whet.methods.quantize.kv_cache import KvCache
from whet.model.site import Site
from whet.recipe.recipe import Calibration, Recipe, Step
from whet.search.option import Choice, Menus, chosen
from whet.search.unit import THOROUGH, Level, Solver


def recipe_of(
    menus: Menus,
    choice: Choice,
    calibration: Calibration,
    seed: int,
    description: str,
    before: Sequence[Step] = (),
    after: Sequence[Step] = (),
    *,
    solver: Solver = THOROUGH,
    draft: tuple[Step, ...] = (),
) -> Recipe:
    """Return the recipe of a choice: a step for each level, with the sites that it is for.

    A recipe has a step at least: where everything stays, one that changes no number. The `solver` is
    how long GPTQ goes on. `draft` makes a model that guesses.
    Law: every linear is selected by the one step of its unit's level, or by none if it stays, and
    before that by one for its input where the level names that.
    """
    taken: dict[Level, list[Site]] = {}
    read: dict[Activation, list[Site]] = {}
    for unit, option in chosen(menus, choice):
        if option.level.format is not None:
            taken.setdefault(option.level.written, []).extend(unit.sites)
        if option.level.input is not None:
            read.setdefault(option.level.input, []).extend(unit.sites)
    everything = [site for menu in menus for site in menu.unit.sites]
    inputs = tuple(
        Step(Activations(activation=activation), patterns(sites, everything))
        for activation, sites in sorted(read.items(), key=lambda pair: str(pair[0]))
    )
    steps = tuple(
        Step(level.use(solver=solver), patterns(sites, everything))
        for level, sites in sorted(taken.items(), key=lambda pair: str(pair[0]))
    )
    every = (*before, *inputs, *steps, *after) or (Step(KvCache(keep=USUAL)),)
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
