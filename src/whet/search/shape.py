"""The folder of a smaller shape of a model, which a search compares levels on."""

from dataclasses import replace
from pathlib import Path

from whet.base.errors import RecipeError
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
    return Folder(made, dense=True)
