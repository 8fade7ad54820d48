"""The folders of smaller models: of a shape that a search compares levels on, of a draft."""

from dataclasses import replace
from pathlib import Path

from whet.base.errors import RecipeError
from whet.model.opened import opened
from whet.recipe.recipe import Recipe, Step
from whet.search.ask import Ask, Carry, Told
from whet.search.structure import refused
from whet.search.told import Within
from whet.store.folder import Folder


def made_of(
    ask: Ask, steps: tuple[Step, ...], name: str, made: Path, carry: Carry, told: Told
) -> Folder:
    """Return the folder that steps make of the model, made where it is not there yet."""
    if reason := refused(steps, ask.folder.config):
        raise RecipeError(f"{name}: {reason}")
    if not made.is_dir():
        recipe = Recipe("shape", steps, name, ask.calibration)
        carry(replace(recipe, seed=ask.seed), ask.folder, made, Within(told))
    return opened(made, dense=True)


def draft_of(ask: Ask, steps: tuple[Step, ...], made: Path, carry: Carry, told: Told) -> Folder:
    """Return the folder of a draft, as a recipe with these steps as its `draft` makes it."""
    if reason := refused(steps[:-1], ask.folder.config):
        raise RecipeError(f"a draft: {reason}")
    if not made.is_dir():
        recipe = Recipe("draft", steps, calibration=ask.calibration, seed=ask.seed)
        carry(recipe, ask.folder, made, Within(told))
    return opened(made)
