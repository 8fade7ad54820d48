"""Models that take long are searched with less: fewer levels, and quicker ones."""

from dataclasses import replace

import pytest

from whet.model.site import Site
from whet.recipe.anatomy import anatomy
from whet.search.scale import WIDE, is_wide
from whet.search.unit import LEVELS, WIDE_LEVELS, level
from whet.store.folder import Folder
from whet.store.resolve import demo


def site(rows: int, cols: int) -> Site:
    return Site("mlp.down", "layers.0.mlp.down_proj", (rows, cols), "hidden", "ffn", "mlp.mid", 0)


def test_what_is_wide_is_the_sum_of_all_linears() -> None:
    half, whole = site(WIDE // 2000, 1000), anatomy(Folder(demo()))
    assert is_wide(replace(whole, sites=(half, half)))
    assert not is_wide(replace(whole, sites=(half,)))
    assert not is_wide(whole)


@pytest.mark.parametrize("name", WIDE_LEVELS)
def test_a_wide_model_is_offered_levels_that_others_are_offered_too(name: str) -> None:
    assert name in LEVELS


@pytest.mark.parametrize("name", LEVELS)
def test_a_quick_level_has_the_format_of_the_whole_one(name: str) -> None:
    one, where = level(name), site(256, 512)
    quick, whole = one.use(alone=True, quick=True), one.use(alone=True)
    assert quick.fitted(where).format == whole.fitted(where).format
    assert (quick != whole) == (one.method == "gptq")
    brief = one.use(brief=True)
    assert brief.fitted(where).format == whole.fitted(where).format
    assert (brief != one.use()) == (one.method == "gptq")
