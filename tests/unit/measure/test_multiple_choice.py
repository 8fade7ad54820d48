"""Multiple-choice questions of a local file: read, scored as lm-eval scores them, and compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from whet.base.errors import FolderError
from whet.measure.choices import read_questions
from whet.measure.intervals import matched_difference, proportion
from whet.measure.multiple_choice import log_likelihoods, score_questions
from whet.runtime.engine import load
from whet.store.resolve import demo

ROW = {"question": "What is in the sky?", "choices": ["the sun", "a fish in the sea", "B"]}
ANSWERS: dict[str, tuple[Any, int]] = {
    "index": (1, 1), "letter": ("A", 0), "text": ("a fish in the sea", 1), "digits": ("2", 2),
    "a text that is a letter": ("B", 2),
}  # fmt: skip


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_are_understood(case: str, tmp_path: Path) -> None:
    answer, index = ANSWERS[case]
    (found,) = read_questions(written(tmp_path / "q.jsonl", {**ROW, "answer": answer}))
    assert found.answer == index
    assert found.prompt == "Question: What is in the sky?\nAnswer:"


def test_context_and_labels(tmp_path: Path) -> None:
    choices = {"text": ["x", "y"], "label": ["1", "2"]}
    row = {"context": "C.", "question": "Q?", "choices": choices, "answer": "1"}
    (found,) = read_questions(written(tmp_path / "q.jsonl", row))
    assert (found.prompt, found.answer) == ("C.\nQuestion: Q?\nAnswer:", 0)


BAD: dict[str, object] = {
    "no object": [1], "no question": {"choices": ["a", "b"], "answer": 0},
    "one choice": {**ROW, "choices": ["a"], "answer": 0}, "no answer": ROW,
    "another answer": {**ROW, "answer": "the moon"}, "index beyond": {**ROW, "answer": 3},
    "empty choice": {**ROW, "choices": ["a", ""], "answer": 0}, "bool": {**ROW, "answer": True},
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_wrong_rows_are_named(case: str, tmp_path: Path) -> None:
    path = written(tmp_path / "q.jsonl", {**ROW, "answer": 0}, BAD[case])
    with pytest.raises(FolderError, match=r"q\.jsonl, row 2: ") as caught:
        read_questions(path)
    assert caught.value.hint


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    (question,) = read_questions(written(tmp_path / "q.jsonl", {**ROW, "answer": 0}))
    tokenizer = AutoTokenizer.from_pretrained(demo())
    model = AutoModelForCausalLM.from_pretrained(demo(), dtype=torch.float32).eval()
    expected: list[float] = []
    prompt = tokenizer(question.prompt).input_ids
    for choice in question.choices:
        ids = tokenizer(f"{question.prompt} {choice}").input_ids
        with torch.inference_mode():
            log = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(sum(float(log[i - 1, ids[i]]) for i in range(len(prompt), len(ids))))
    found = log_likelihoods(load(demo(), "reference"), question)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_model_against_itself_flips_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "q.jsonl", {**ROW, "answer": 0}, {**ROW, "answer": 2})
    engine, heard = load(demo(), "reference"), list[tuple[int, int]]()
    record = score_questions(path, engine, engine, lambda *told: heard.append(told))
    values = {name: fact.value for name, fact in record.facts.items()}
    assert values["flips"] == values["changed_answers"] == values["acc_change"] == 0
    assert values["acc"] == values["acc_original"]
    assert values["flips_low"] == 0 < values["flips_high"]
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_intervals_of_proportions() -> None:
    found = proportion(5, 50)
    for end in (found.low, found.high):  # where the score test just rejects
        assert end is not None
        assert abs(0.1 - end) == pytest.approx(1.959964 * (end * (1 - end) / 50) ** 0.5)
    assert proportion(0, 10).low == 0
    assert proportion(10, 10).high == pytest.approx(1)
    mine, theirs = np.array([True, True, False, False]), np.array([True, False, False, False])
    found = matched_difference(mine, theirs)
    assert found.value == 0.25
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.25 < found.high
