"""A choice as a recipe: every linear selected once, by the step of its unit's level."""

from itertools import product

import pytest
from tests.unit.search.menus import NAMES, site

from whet.recipe.file import dumps, loads
from whet.recipe.recipe import Calibration
from whet.search.found import patterns, recipe_of
from whet.search.option import Menu, Option
from whet.search.unit import Level, level, units


def model():
    """Two blocks, one of them with experts, and a head."""
    found = [site(role, 0, tap) for role, tap in (("attn.q", "attn.in"), ("attn.k", "attn.in"))]
    found += [site("attn.o", 0, "attn.out"), site("attn.o", 1, "attn.out")]
    for expert in range(2):
        found += [site(f"mlp.experts.{expert}.{name}", 1, f"mlp.experts.{expert}.in")
                  for name in ("gate", "up")]  # fmt: skip
    return [*found, site("head", None, "head.in")]


WIDE = "int3-g64-affine on int16-g32"  # of the second of NAMES, what it multiplies


def menus_of():
    names = (*NAMES[:2], WIDE)
    options = (Option(Level(), 0.0, 100), *(Option(level(name), 0.1, 50) for name in names))
    return [Menu(unit, options) for unit in units(model())]


def test_units_join_what_reads_the_same() -> None:
    names = {unit.name: [s.role for s in unit.sites] for unit in units(model())}
    assert names["layers.0.attn.in"] == ["attn.q", "attn.k"]
    assert len(names["layers.1.mlp.experts.in"]) == 4
    assert sum(map(len, names.values())) == len(model())


@pytest.mark.parametrize("numbers", list(product(range(4), repeat=5))[::37])
def test_every_linear_has_the_level_of_its_unit(numbers) -> None:
    menus = menus_of()
    choice = {menu.unit.name: n for menu, n in zip(menus, numbers, strict=True)}
    if not any(numbers):
        return
    recipe = recipe_of(menus, choice, Calibration(), 0, "")
    assert loads(dumps(recipe)) == recipe
    for menu in menus:
        chosen = menu.options[choice[menu.unit.name]].level
        expected = [given for given in (chosen.input, chosen.format) if given is not None]
        for one in menu.unit.sites:
            mine = [step.use for step in recipe.steps if step.selects(one)]
            assert [getattr(use, "activation", None) or use.format for use in mine] == expected


def test_a_role_stands_for_all_blocks() -> None:
    every = model()
    outputs = [one for one in every if one.role == "attn.o"]
    assert patterns(outputs, every) == ("attn.o",)
    assert patterns(outputs[:1], every) == ("layers.0.attn.o",)
    experts = [one for one in every if ".up" in one.role]
    assert patterns(experts, every) == ("mlp.experts.*.up",)
    assert patterns(every[-1:], every) == ("head",)
