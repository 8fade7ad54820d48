import pytest

from whet import api
from whet.measure import guided as module
from whet.measure.guided import guided
from whet.report import resources
from whet.report.evidence import evidence
from whet.runtime.engine import load


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A few short answers are enough."""
    monkeypatch.setattr(module, "PROMPTS", 3)
    monkeypatch.setattr(module, "NEW", 16)


def test_a_draft_is_timed_beside_the_model_alone():
    told: list[int] = []
    engine = load("demo")
    record = guided(engine, load("demo"), "builtin", lambda done, _: told.append(done))
    facts = record.facts
    assert record.step == "draft"
    assert facts["right"].value > 0.9
    assert facts["tokens_a_step"].value > 2
    for name in ("decode_guided", "decode_alone", "gain"):
        assert 0 < facts[f"{name}_low"].value <= facts[name].value <= facts[f"{name}_high"].value
    assert told == list(range(1, len(told) + 1))
    assert engine.draft is None
    table = resources.drafts(evidence([record]))
    assert table is not None
    assert len(table.rows) == 1


def test_measure_takes_a_draft(monkeypatch):
    monkeypatch.setattr("whet.api.measurement.compare", lambda *_, **__: [])
    assert any(one.step == "draft" for one in api.measure("demo", draft="demo"))
