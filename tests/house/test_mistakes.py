"""Mistakes that people make: each has its exit code, a few words that help, and leaves nothing."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest
from tests.house.mistakes.place import MISTAKES, PLAIN, Mistake, Place
from tests.small import small_model

from whet.cli.main import code

for part in ("folders", "recipes", "texts", "outputs", "words"):
    import_module(f"tests.house.mistakes.of_{part}")

QUICK = 5.0  # of the processor, in this process [s]
CODES = {2, 3, 4, 65, 66, 69, 74, 75, 77, 78}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for heavy in (
        "whet.api.compression",
        "whet.model.foreign",
        "whet.api.measurement",
        "scipy.linalg",
    ):
        import_module(heavy)  # imports are not counted
    return small_model(tmp_path_factory.mktemp("models") / "base", layers=1)


def _not_compared(folder: Path, blocks: int) -> dict[str, str]:
    """Leave the source alone: some mistakes count what is written."""
    return {"skipped": f"{blocks} blocks of {folder} in a test of mistakes"}


@pytest.fixture
def place(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("whet.recipe.reading._asked", _not_compared)
    with ExitStack() as held:
        found = Place(tmp_path, base, monkeypatch, held)
        found.write("plain.yaml", PLAIN)
        yield found


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_has_its_code_helps_and_leaves_nothing(
    mistake: Mistake, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    words = mistake.make(place)
    before, began = place.listing(), time.process_time()
    found = code(words)
    spent = time.process_time() - began
    shown = capsys.readouterr()
    assert found == mistake.code, shown.err
    assert 2 <= len(shown.err.splitlines()) <= 3, shown.err
    assert [told for told in mistake.told if told not in shown.err] == [], shown.err
    assert "Traceback" not in shown.err
    assert "\x1b" not in shown.err
    assert shown.out == "" or mistake.name == "measure_what_was_tampered_with"
    assert place.listing() == before
    assert spent < QUICK


def test_there_are_many_and_every_code_is_met() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 100
    assert {mistake.code for mistake in MISTAKES} >= CODES - {3}
