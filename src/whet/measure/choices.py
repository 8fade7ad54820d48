r"""Multiple-choice questions from a local file, scored as lm-eval scores them. Needs no torch.

A row has `question`, `choices` and `answer`, and may have `context`. The model reads
`{context}\nQuestion: {question}\nAnswer:` and each choice after a space; a choice's score is the sum
of its tokens' log-probabilities. `acc` takes the choice with the highest score, `acc_norm` the one
with the highest score per character (lm-eval's `multiple_choice`: acc, acc_norm).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, cast

from whet.base.errors import FolderError
from whet.base.paths import local_path
from whet.calibrate.rows import bad, kind
from whet.calibrate.texts import json_rows, text_files

SUFFIXES = (".jsonl", ".json")
MEND = 'A row is {"question": text, "choices": [text, …], "answer": index from 0, letter or text}.'


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its choices; `answer` is the index of the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: int
    where: str


def is_question_file(name: str) -> bool:
    """Return whether a task is a local file of questions."""
    return name.endswith(SUFFIXES)


def read_questions(source: str) -> tuple[Question, ...]:
    """Return the questions of a file; raise, naming the row, where one is not complete."""
    path: Path = text_files(source)[0] if local_path(source).is_file() else local_path(source)
    found = tuple(_question(row, where) for row, where in json_rows(path))
    if not found:
        raise FolderError(f"{path} has no questions", MEND)
    return found


def _question(row: object, where: str) -> Question:
    if not isinstance(row, dict):
        raise bad(f"{where}: a JSON object was expected, found {kind(row)}", MEND)
    fields = cast("dict[str, Any]", row)
    texts, labels = _choices(fields.get("choices"), where)
    prompt = f"Question: {_text(fields, 'question', where)}\nAnswer:"
    if fields.get("context"):
        prompt = f"{_text(fields, 'context', where)}\n{prompt}"
    return Question(prompt, texts, _answer(fields.get("answer"), texts, labels, where), where)


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(fields.get(name), str) or not fields[name].strip():
        raise bad(f"{where}: {name!r} must be text, found {kind(fields.get(name))}", MEND)
    return fields[name]


def _choices(found: object, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the texts and the labels of choices: a list, or `text` and `label` as ARC has them."""
    labels: object = None
    if isinstance(found, dict):
        both = cast("dict[str, object]", found)
        found, labels = both.get("text"), both.get("label")
    texts = _texts(found)
    if len(texts) < 2 or not all(texts):
        raise bad(f"{where}: 'choices' must be a list of at least two texts, none empty", MEND)
    if len(texts) > len(ascii_uppercase):
        raise bad(f"{where}: {len(texts)} choices found, expected at most 26", MEND)
    named = _texts(labels)
    return texts, named if len(named) == len(texts) else tuple(ascii_uppercase[: len(texts)])


def _texts(found: object) -> tuple[str, ...]:
    """Return the items of a list of texts, or none where it is anything else."""
    items = cast("Sequence[object]", found) if isinstance(found, list) else ()
    texts = tuple(item for item in items if isinstance(item, str))
    return texts if len(texts) == len(items) else ()


def _answer(found: object, texts: Sequence[str], labels: Sequence[str], where: str) -> int:
    """Return the index that an answer means: an index from 0, else a choice's text, else its letter."""
    index = found if type(found) is int else -1
    if isinstance(found, str):
        by_text = [i for i, text in enumerate(texts) if text.strip() == found.strip()]
        by_label = [i for i, label in enumerate(labels) if label == found.strip()]
        digits = [int(found)] if found.strip().isdecimal() else []
        index = next(iter((*by_text, *by_label, *digits)), -1)
    if not 0 <= index < len(texts):
        raise bad(
            f"{where}: 'answer' is {str(found)[:40]!r}, none of the {len(texts)} choices", MEND
        )
    return index
