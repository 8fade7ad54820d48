from pathlib import Path

import pytest

from whet.base.errors import FolderError, RecipeError, UnsafeError, UnsupportedError
from whet.measure import tasks as module
from whet.measure.tasks import tasks
from whet.store.resolve import demo

HARNESS = """
__version__ = "0.0-test"

def simple_evaluate(model, model_args, tasks, num_fewshot, limit, log_samples, **seeds):
    assert model == "hf" and model_args["dtype"] == "float32" and not log_samples
    if "broken" in tasks:
        raise KeyError("broken")
    scores = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.01,
              "exact_match,strict": 0.25, "exact_match_stderr,strict": "N/A", "name": "y"}
    return {"results": {t: {"alias": t} if t == "group" else scores for t in tasks},
            "versions": {t: 1.0 for t in tasks},
            "n-samples": {t: {"original": 100, "effective": limit or 100} for t in tasks}}
"""


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lm_eval.py").write_text(HARNESS)
    monkeypatch.syspath_prepend(tmp_path)


def test_without_lm_eval_the_exact_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError) as caught:
        tasks(demo(), ["arc_easy"])
    assert caught.value.hint == 'pip install "whet[eval]"'
    assert caught.value.code == 69


@pytest.mark.parametrize(
    "name", ["../task", "/etc/x", "my.yaml", "a/b", "--help", "a b", "", "x.py", "a,b"]
)
def test_only_names_of_tasks_are_taken(name: str) -> None:
    with pytest.raises(UnsafeError, match="no name of a task"):
        tasks(demo(), [name])


def test_no_task_is_a_mistake() -> None:
    with pytest.raises(RecipeError):
        tasks(demo(), [])


@pytest.mark.usefixtures("harness")
def test_scores_come_back_with_their_intervals() -> None:
    (found,) = tasks(demo(), ["arc_easy"], limit=20)
    assert found.step == "task"
    assert found.notes == {"task": "arc_easy", "version": "1.0"}
    assert {name: fact.value for name, fact in found.facts.items()} == pytest.approx(
        {"acc": 0.5, "acc_low": 0.4804, "acc_high": 0.5196, "exact_match_strict": 0.25}
    )
    assert found.facts["acc"].how == "lm-eval 0.0-test, 20 samples"


@pytest.mark.usefixtures("harness")
def test_a_failing_harness_says_what_failed() -> None:
    with pytest.raises(FolderError, match="broken"):
        tasks(demo(), ["broken"])
    with pytest.raises(FolderError, match="no score for group"):
        tasks(demo(), ["group"])
