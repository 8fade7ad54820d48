"""The recipe of the folder that a choice becomes, and the size of what such folders hold beside tensors."""

from dataclasses import replace

from whet.recipe.recipe import Recipe
from whet.search.ask import Ask
from whet.search.build import exact_bytes
from whet.search.choose import Belief, settled
from whet.search.effort import FolderEffort
from whet.search.found import recipe_of
from whet.search.option import Choice, total
from whet.search.stand import Stand

HEADER = 32  # bytes by which a linear's entry in a header may differ from format to format


def recipe_for(ask: Ask, stand: Stand, choice: Choice, effort: FolderEffort) -> Recipe:
    """Return the recipe of a choice for a shape, calibrated and solved as thoroughly as there is time for."""
    return recipe_of(
        stand.menus,
        choice,
        replace(ask.calibration, samples=effort.windows),
        ask.seed,
        f"Found by a search: {ask.limits.text or 'no limits'}; {stand.name}.",
        stand.steps,
        stand.finish,
        solver=effort.solver,
        draft=stand.draft,
    )


def with_header(ask: Ask, stand: Stand, belief: Belief, effort: FolderEffort) -> Belief:
    """Return a belief that knows what files have beside their tensors, with a little to spare."""
    found, _, _ = settled(stand, ask, belief)
    if found is None:
        return belief
    real = exact_bytes(recipe_for(ask, stand, found.choice, effort), ask.folder)
    tensors = stand.fixed + total(stand.menus, found.choice, "nbytes")
    spare = HEADER * sum(len(menu.unit.sites) for menu in stand.menus)
    return replace(belief, header=round(real - tensors) + spare)
