"""How many multiple-choice questions a folder answers, and how many answers differ from the original's.

Runs by the engine, natively where kernels allow; needs neither the hub nor lm-eval nor torch.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.measure.choices import Question, read_questions
from whet.measure.divergence import log_softmax
from whet.measure.intervals import Interval, matched_difference, proportion
from whet.runtime.engine import Engine

Told = Callable[[int, int], None]  # questions done, of how many
Right = NDArray[np.bool_]
ACC = "share of questions whose right choice has the highest log-likelihood (lm-eval acc)"
NORM = "share whose right choice has the highest log-likelihood a character (lm-eval acc_norm)"
WILSON = "95 % interval of a proportion (Wilson 1927)"
MATCHED = "95 % interval of matched proportions (Agresti & Min 2005)"
FLIPS = "share of questions that became right or wrong against the original (arXiv 2407.09141, §3)"
CHANGED = "share of questions to which another choice is given than by the original"


@dataclass(frozen=True, slots=True)
class Answers:
    """The choices that a model gives to some questions, and which of them are right."""

    chosen: NDArray[np.int64]
    right: Right
    right_norm: Right


def score_questions(
    source: str, engine: Engine, original: Engine | None, told: Told | None = None
) -> Record:
    """Return the accuracy of a folder on a file of questions (step "task"), beside its original's."""
    questions = read_questions(source)
    models = [engine, *([original] if original else [])]
    total, answers = len(questions) * len(models), list[Answers]()
    for number, model in enumerate(models):
        before = number * len(questions)
        answers.append(_answers(model, questions, lambda n, b=before: told and told(b + n, total)))
    facts = _accuracies(answers[0])
    if original:
        facts |= _against(*answers)
    content = json.dumps([[q.prompt, q.choices, q.answer] for q in questions])
    notes = {
        "task": Path(source).name, "version": "", "questions": str(len(questions)),
        "digest": sha256(content.encode()).hexdigest(), "executor": engine.executor.name,
    }  # fmt: skip
    return Record("task", "", facts, notes=notes)


def _answers(
    engine: Engine, questions: Sequence[Question], told: Callable[[int], object]
) -> Answers:
    chosen, normed = np.empty((2, len(questions)), np.int64)
    for number, question in enumerate(questions):
        scores = log_likelihoods(engine, question)
        chosen[number] = scores.argmax()
        normed[number] = (scores / [len(choice) for choice in question.choices]).argmax()
        told(number + 1)
    expected = np.array([question.answer for question in questions])
    return Answers(chosen, chosen == expected, normed == expected)


def log_likelihoods(engine: Engine, question: Question) -> NDArray[np.float64]:
    """Return ln p(choice | prompt) of each choice, the sum over its tokens [nat]."""
    tokenizer = engine.tokenizer
    first = tokenizer.encode("a", special=True)[:1] if tokenizer.adds_bos else []
    prompt = len(first) + len(tokenizer.encode(question.prompt))
    found: list[float] = []
    for choice in question.choices:
        ids = first + tokenizer.encode(f"{question.prompt} {choice}")
        found.append(_continuation(engine, ids, len(ids) - prompt, question.where))
    return np.array(found)


def _continuation(engine: Engine, ids: Sequence[int], own: int, where: str) -> float:
    """Return the log-probability of the last `own` tokens; a prompt is cut at its beginning."""
    read = np.asarray(ids[:-1], np.int64)[-engine.context :]
    if not 0 < own <= len(read):
        raise FolderError(
            f"{where}: a choice has {own} tokens after a prompt, expected 1 to {len(read)}",
            "Shorten the choice, or begin it with a letter or a digit.",
        )
    logits = np.concatenate(list(engine.pieces(read, len(read))))[-own:]
    log = log_softmax(logits)
    return float(log[np.arange(own), ids[-own:]].sum())


def _accuracies(answers: Answers, suffix: str = "") -> dict[str, Quantity]:
    return {
        **_share(f"acc{suffix}", answers.right, ACC),
        **_share(f"acc_norm{suffix}", answers.right_norm, NORM),
    }


def _against(mine: Answers, theirs: Answers) -> dict[str, Quantity]:
    """Return what changed between the answers of a folder and those of its original."""
    difference = matched_difference(mine.right, theirs.right)
    return {
        **_accuracies(theirs, "_original"),
        **_facts("acc_change", difference, "acc − acc of the original", MATCHED),
        **_share("flips", mine.right != theirs.right, FLIPS),
        **_share("changed_answers", mine.chosen != theirs.chosen, CHANGED),
    }


def _share(name: str, which: Right, how: str) -> dict[str, Quantity]:
    return _facts(name, proportion(int(which.sum()), len(which)), how, WILSON)


def _facts(name: str, found: Interval, how: str, drawn: str) -> dict[str, Quantity]:
    facts = {name: Quantity(found.value, "1", how)}
    for end, value in (("low", found.low), ("high", found.high)):
        if value is not None:
            facts[f"{name}_{end}"] = Quantity(value, "1", drawn)
    return facts
