"""By what a search is known again: what its numbers depend on, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.small import small_model

from whet.base.errors import IdentityError, RecipeError
from whet.recipe.anatomy import anatomy
from whet.recipe.recipe import Calibration
from whet.search.ask import Ask
from whet.search.limits import Limits
from whet.search.question import identity_of, share
from whet.search.text import calibration_of
from whet.search.unit import LEVELS
from whet.store.folder import Folder

WORDS = "It was a dark night, and the rain fell in torrents upon the roof of the inn. " * 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(small_model(tmp_path_factory.mktemp("question") / "model"), dense=True)


def known(ask: Ask):
    model = anatomy(ask.folder)
    return identity_of(ask, calibration_of(ask.calibration, ask.folder, model, ask.seed))


def about(folder: Folder, path: Path, text: str) -> Ask:
    path.write_text(text)
    return Ask(folder, Limits(), calibration=Calibration(str(path), samples=2))


def test_of_a_text_the_tokens_count_wherever_it_lies(folder: Folder, tmp_path: Path) -> None:
    first = known(about(folder, tmp_path / "a.txt", WORDS))
    assert known(about(folder, tmp_path / "b.txt", WORDS)) == first
    assert known(about(folder, tmp_path / "a.txt", WORDS.replace("dark", "bright"))) != first


def test_levels_count_and_limits_do_not(folder: Folder, tmp_path: Path) -> None:
    ask = about(folder, tmp_path / "a.txt", WORDS)
    assert known(replace(ask, levels=LEVELS)) == known(replace(ask, seconds=9.0)) == known(ask)
    assert known(replace(ask, levels=LEVELS[:3])) != known(ask)
    assert known(replace(ask, seed=1)) != known(ask)


def test_a_sweep_of_something_else_is_refused(folder: Folder, tmp_path: Path) -> None:
    mine = known(about(folder, tmp_path / "a.txt", WORDS))
    share(tmp_path / "sweep", mine)
    share(tmp_path / "sweep", mine)
    with pytest.raises(IdentityError, match="calibration"):
        share(tmp_path / "sweep", {**mine, "calibration": "another"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(RecipeError, match="something else"):
        share(tmp_path / "other", mine)
