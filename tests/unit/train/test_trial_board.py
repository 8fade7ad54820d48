"""Trials as TensorBoard reads them: every one a run, and the curves."""

from math import nan

import pytest
from tests.unit.report.searched import searched

from whet import api
from whet.base.errors import UnsupportedError
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.train import trial_board
from whet.train.trial_board import trials_to_tensorboard


def read(folder):
    """The scalars of a folder: name -> [(step, value)]."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def test_every_trial_is_a_run_and_the_curves_are_drawn(tmp_path):
    pytest.importorskip("tensorboard")
    records = searched()
    assert api.log_trials(records, str(tmp_path)) == 4
    runs = {path.name: read(path) for path in tmp_path.iterdir() if path.is_dir()}
    assert runs.keys() == {"trial-0", "trial-1", "trial-2", "result"}
    trials = {f"trial-{r.site}": r for r in records if r.step == "trial"}
    for name, record in trials.items():
        values = {key.removeprefix("trial/"): found[0][1] for key, found in runs[name].items()}
        assert values == pytest.approx({n: f.value for n, f in record.facts.items()})
    (head,) = [record for record in records if record.step == "search"]
    assert runs["result"]["trial/kl"][0][1] == pytest.approx(head.facts["kl_measured"].value)
    curves = read(tmp_path)
    generations = [(int(r.site), r.facts["kl"].value) for r in records if r.step == "generation"]
    assert curves["generation/kl"] == [(n, pytest.approx(kl)) for n, kl in generations]
    assert len(curves["frontier/kl"]) == 20


def test_odd_names_and_numbers_do_no_harm(tmp_path):
    pytest.importorskip("tensorboard")
    facts = {"kl": Quantity(nan, "nat", ""), "size": Quantity(5, "byte", "")}
    records = [Record("trial", "../../evil", facts), Record("generation", "x", facts)]
    assert trials_to_tensorboard(records, tmp_path / "log") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert read(tmp_path / "log" / "trial-unnamed-0") == {"trial/size": [(0, 5.0)]}


def test_without_tensorboard_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(trial_board, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="tensorboard") as caught:
        trials_to_tensorboard([], tmp_path)
    assert "whet[train]" in caught.value.hint
