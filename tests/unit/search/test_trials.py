"""The outer loop: trials that last, fail, and are never judged twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from whet.base.errors import FolderError, QualityError, StoppedError
from whet.search.structure import Space, Structure
from whet.search.trials import Score, Trials

SPACE = Space(layers=2, kv=1, tokens=1000, ffn=(0.0, 0.25))


def score(structure: Structure, *, broken: float = 0.0) -> Score:
    """Less is better the more layers are gone."""
    return Score(1.0 - 0.1 * structure.layers, {"kl": 0.01}, {"size": broken}, "int4-g64 ×8")


def times(count: int):
    left = iter(range(count))
    return lambda found: next(left, None) is not None


def trials(place: Path) -> Trials:
    return Trials(place / "trials", 0, SPACE)


def test_the_model_as_it_is_comes_first_and_none_twice(tmp_path: Path) -> None:
    seen: list[Structure] = []

    def judge(structure: Structure) -> Score:
        seen.append(structure)
        return score(structure)

    run = trials(tmp_path)
    run.run(judge, times(10))
    assert seen[:2] == [Structure(), Structure(ffn=0.25, tokens=4000)]
    assert len(seen) > 3
    assert len(set(seen)) == len(seen)
    assert run.best == max(seen, key=lambda structure: structure.layers)
    states = {record.notes["state"] for record in run.records()}
    assert states == {"complete"}


def test_a_draft_is_tried_once_for_the_model_as_it_is(tmp_path: Path) -> None:
    seen: list[Structure] = []

    def judge(structure: Structure) -> Score:
        seen.append(structure)
        return score(structure)

    space = Space(tokens=1000, caches=("bf16", "int8"), drafts=(0, 2))
    run = Trials(tmp_path / "trials", 0, space)
    run.run(judge, times(1))
    draft = Structure(draft=2, learning=4000)
    assert seen == [Structure(), Structure(cache="int8"), draft]
    told = "as it is, a draft of 2 layers (4,000 tokens of distillation) guesses"
    assert str(draft) == told  # by which its folder is known again
    assert draft.alone == draft.shape == Structure()
    assert replace(draft, ffn=0.25).drafting == draft


def test_without_time_the_model_as_it_is_is_judged_all_the_same(tmp_path: Path) -> None:
    run = trials(tmp_path)
    run.run(score, lambda found: False)
    assert run.best == Structure()


def test_finished_trials_last(tmp_path: Path) -> None:
    trials(tmp_path).run(score, times(4))
    again = trials(tmp_path)
    before = again.records()
    again.run(lambda structure: pytest.fail("judged again"), lambda found: False)
    assert again.records() == before
    assert again.best is not None
    assert again.lasted > 0


def test_a_trial_that_fails_is_a_record_and_no_end(tmp_path: Path) -> None:
    def judge(structure: Structure) -> Score:
        if structure.layers:
            raise FolderError("this shape is broken")
        return score(structure)

    run = trials(tmp_path)
    run.run(judge, times(8))
    failed = [record for record in run.records() if record.notes["state"] == "failed"]
    assert failed
    assert all(record.notes["reason"] == "this shape is broken" for record in failed)
    assert run.best is not None
    assert run.best.layers == 0


def test_what_is_wrong_with_the_model_itself_ends_the_search(tmp_path: Path) -> None:
    def judge(structure: Structure) -> Score:
        raise FolderError("no such model")

    with pytest.raises(FolderError, match="no such model"):
        trials(tmp_path).run(judge, times(3))


def test_stopped_and_gone_on(tmp_path: Path) -> None:
    def stopped(structure: Structure) -> Score:
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        trials(tmp_path).run(stopped, times(3))
    run = trials(tmp_path)
    run.run(score, lambda found: False)
    assert run.best == Structure()


def test_limits_that_no_shape_keeps(tmp_path: Path) -> None:
    def judge(structure: Structure) -> Score:
        if structure.whole:
            raise QualityError("--max-size 1kB cannot be kept")
        return score(structure, broken=0.2)

    run = trials(tmp_path)
    run.run(judge, times(4))
    assert run.best is None
    assert {r.notes["state"] for r in run.records()} == {"failed", "infeasible"}


def test_until_something_keeps_the_limits_time_is_asked_for_finding_it(tmp_path: Path) -> None:
    asked: list[bool] = []

    def more(found: bool) -> bool:
        asked.append(found)
        return len(asked) < 4

    def judge(structure: Structure) -> Score:
        return score(structure, broken=0.2 if len(asked) < 2 else 0.0)

    trials(tmp_path).run(judge, more)
    assert asked == [False, False, True, True]


def test_keys_and_values_are_kept_in_every_way_before_shapes_change(tmp_path: Path) -> None:
    seen: list[Structure] = []

    def judge(structure: Structure) -> Score:
        seen.append(structure)
        return score(structure)

    run = Trials(tmp_path / "trials", 0, replace(SPACE, caches=("bf16", "int8", "kv4")))
    run.run(judge, times(8))
    assert seen[:3] == [Structure(cache=one) for one in ("bf16", "int8", "kv4")]
    assert len(set(seen)) == len(seen) > 4
    again = Trials(tmp_path / "trials", 0, replace(SPACE, caches=("bf16", "int8", "kv4")))
    assert again.best == run.best


def test_shapes_in_words() -> None:
    assert str(Structure()) == "as it is"
    assert str(Structure(cache="int8")) == "as it is, keys and values in int8"
    told = str(Structure(ffn=0.25, layers=1, kv=1, tokens=200_000))
    assert told == (
        "1 layer and 0.25 of the ffn and 1 key-value head less, 200,000 tokens of distillation"
    )
