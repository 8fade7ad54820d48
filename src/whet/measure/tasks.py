"""Downstream tasks of lm-eval, an extra, run in a process of its own."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from whet.base.errors import FolderError, RecipeError, UnsafeError, UnsupportedError
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.measure.memory import child

PACKAGE = "lm_eval"
NAME = re.compile(r"[A-Za-z0-9]\w*(?:[-.]\w+)*")
NORMAL = 1.96  # 95 % of a normal distribution lie within so many standard errors
STDERR = "_stderr"


def tasks(
    folder: Path,
    names: Sequence[str],
    *,
    limit: int | None = None,
    fewshot: int | None = None,
    seed: int = 0,
    offline: bool = False,
) -> list[Record]:
    """Return the scores of a folder, a record (step "task") for each task.

    Tasks are taken by name from those that lm-eval ships: files that could name code are refused.
    The model is loaded by transformers, in float32.
    """
    refuse_tasks(names)
    asked = {
        "folder": str(folder.absolute()), "tasks": list(names), "limit": limit,
        "fewshot": fewshot, "seed": seed,
    }  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} if offline else {}
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "scores.json"
        child([sys.executable, "-m", "whet.measure.tasks", json.dumps(asked), str(answer)], quiet)
        found = json.loads(answer.read_text(encoding="utf-8"))
    return [_record(name, found) for name in found["results"]]


def refuse_tasks(names: Sequence[str]) -> None:
    """Raise for names that are none, and where lm-eval is missing; asked before work starts."""
    if not names:
        raise RecipeError("no task was named", "Name one, e.g. arc_easy.")
    for name in names:
        if not NAME.fullmatch(name) or name.endswith((".yaml", ".yml", ".json", ".py")):
            raise UnsafeError(
                f"the task {name[:80]!r} is no name of a task",
                "Give names of tasks that lm-eval ships, or a .jsonl file of questions; files of lm-eval can "
                "run code and are refused.",
            )
    if find_spec(PACKAGE) is None:
        raise UnsupportedError(
            "tasks need lm-eval, which is not installed here", 'pip install "whet[eval]"'
        )


def _record(name: str, found: Mapping[str, Any]) -> Record:
    scores: Mapping[str, Any] = found["results"][name]
    how = f"lm-eval {found['version']}, {found['samples'].get(name, 'all')} samples"
    facts: dict[str, Quantity] = {}
    for metric, value in _metrics(scores):
        facts |= _facts(metric, value, _error(scores, metric), how)
    if not facts:
        raise FolderError(f"lm-eval gave no score for {name}", "Give the names of single tasks.")
    notes = {"task": name, "version": str(found["versions"].get(name, ""))}
    return Record("task", "", facts, notes=notes)


def _metrics(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield metrics as lm-eval names them, `acc,none`, with their values."""
    for metric, value in scores.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and "," in metric and STDERR not in metric:
            yield metric, float(value)


def _error(scores: Mapping[str, Any], metric: str) -> float | None:
    """Return the standard error of a metric, if lm-eval knows it."""
    value = scores.get(f"{STDERR},".join(metric.split(",", 1)))
    return float(value) if isinstance(value, int | float) else None


def _facts(metric: str, value: float, error: float | None, how: str) -> dict[str, Quantity]:
    name = re.sub(r"\W+", "_", metric.removesuffix(",none"))
    facts = {name: Quantity(value, "1", how)}
    if error is not None:
        ends = {"low": value - NORMAL * error, "high": value + NORMAL * error}
        drawn = "95 % interval, lm-eval's standard error"
        facts |= {f"{name}_{end}": Quantity(x, "1", drawn) for end, x in ends.items()}
    return facts


def _main(asked: str, answer: str) -> None:
    """Evaluate; whet is imported first, so that transformers knows its folders."""
    import importlib

    importlib.import_module("whet")
    harness: Any = importlib.import_module(PACKAGE)
    settings = json.loads(asked)
    seeds = dict.fromkeys(
        ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"),
        settings["seed"],
    )
    found = harness.simple_evaluate(
        model="hf",
        model_args={"pretrained": settings["folder"], "dtype": "float32"},
        tasks=settings["tasks"],
        num_fewshot=settings["fewshot"],
        limit=settings["limit"],
        log_samples=False,
        **seeds,
    )
    samples = {name: n["effective"] for name, n in found.get("n-samples", {}).items()}
    told = {
        "results": found["results"], "versions": found.get("versions", {}), "samples": samples,
        "version": getattr(harness, "__version__", "?"),
    }  # fmt: skip
    Path(answer).write_text(json.dumps(told, default=str), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
