"""Another process measures the same, and its errors are raised here."""

from pathlib import Path

import pytest
from tests.small import small_model

from whet.base.errors import MissingError
from whet.base.record import Record
from whet.kernels.native import missing
from whet.measure import apart
from whet.measure.quality import compare
from whet.runtime.engine import load

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("apart") / "model", 1)


def test_records_are_those_of_this_process(model: Path) -> None:
    here, there = compare(model, model, count=2)[0], apart.compare(model, model, "builtin", 2)[0]
    facts = [dict(record.facts) for record in (here, there)]
    held = [one.pop("peak_rss").value for one in facts]
    assert facts[0] == facts[1]
    assert held[1] < held[0]  # what this process has held is not counted


def test_words_may_have_line_ends_of_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("token", "", notes={"context": "one\u2028two\x85three"})
    monkeypatch.setattr(apart, "_answer", lambda *_: f"{record.line()}\n{record.line()}")
    assert apart.compare(Path(), Path(), "builtin", 2) == [record, record]


def test_speed_and_the_rest(model: Path) -> None:
    found = apart.speed([model], prompt=8, others=(), runs=1, context=8)
    assert found[0].step == "speed"
    assert found[0].facts["decode"].value > 0
    rest = apart.rest(load(model, "native"), others=lambda rows: 0.0, memory=False)
    assert all(seconds > 0 for _, seconds in rest.first)
    assert rest.memory == 0
    guided = apart.guided(model, model, "builtin")
    assert guided.facts["right"].value == 1  # a model guesses rightly for itself


def test_errors_cross_over(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no text"):
        apart.compare(model, model, str(tmp_path / "none.txt"), 2)
