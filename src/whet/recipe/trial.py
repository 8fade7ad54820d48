"""Predict time and memory by doing a little of the work: one block, on few tokens, in a process of its own.

A block takes a + b·n seconds for n windows: a for the rewriting, b for running the model. Two trials
give both. The process's own peak is what the whole run will need, since no more than one block is
ever in memory, and windows go through it a fixed number at a time.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from whet.base.allocator import retain
from whet.base.machine import peak_rss
from whet.base.subprocesses import failure_reason
from whet.model.opened import opened
from whet.recipe.estimate import Estimate, estimate
from whet.recipe.execute import Execution
from whet.recipe.file import dumps, loads
from whet.recipe.pipeline import Pipeline
from whet.recipe.plan import Plan, plan
from whet.recipe.progress import Silence
from whet.recipe.streams import windows_at_once
from whet.store.checkpoint import Checkpoint


def trial(bound: Pipeline, windows: tuple[int, int], memory_limit: int | None = None) -> Estimate:
    """Return what a run on (number, length) windows will need; falls back to shapes if it fails.

    Only a recipe of one streamed stage is tried: what others read is still to be made.
    """
    if bound.whole:
        return estimate(bound, memory_limit)
    with tempfile.TemporaryDirectory(prefix="whet-trial-") as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(dumps(bound.recipe), encoding="utf-8")
        shape = [str(size) for size in (*windows, torch.get_num_threads())]
        command = [
            sys.executable,
            "-m",
            "whet.recipe.trial",
            str(bound.folder.path),
            folder,
            *shape,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    shapes = estimate(bound, memory_limit)
    if done.returncode:
        why = failure_reason(done.returncode, done.stderr)
        return replace(shapes, how=f"from shapes; the trial of one block failed: {why}")
    found = json.loads(done.stdout)
    return replace(
        shapes,
        memory=found["memory"] + shapes.hidden_states,
        seconds=found["seconds"],
        how="from a trial of one block",
    )


@torch.inference_mode()
def _tried(bound: Plan, samples: int, length: int, work: Path) -> dict[str, float]:
    """Enter, run the largest block on one batch and on two, and leave.

    Embedding and head are rounded once: one batch goes through a plan that keeps them.
    """
    retain()
    batch = windows_at_once(bound.anatomy.hidden, length)
    few, more = min(batch, samples), min(2 * batch, samples)
    twice, ends = _timed(bound, more, length, work)
    slope = 0.0
    if more > few:
        kept = plan(bound.recipe.keeping_ends(), bound.folder)
        slope = max(0.0, twice - _timed_block(kept, few, length, work)) / (more - few)
    each = twice + slope * (samples - more)
    return {"memory": peak_rss(), "seconds": ends + each * bound.anatomy.layers}


def _timed_block(bound: Plan, samples: int, length: int, work: Path) -> float:
    """Return what the largest block takes [s]."""
    execution, part = _execution(bound, samples, length, work)
    streams = execution.enter()
    began = time.perf_counter()
    execution.through(part, streams)
    return time.perf_counter() - began


def _execution(bound: Plan, samples: int, length: int, work: Path) -> tuple[Execution, int]:
    """Return a run on random tokens, and the number of the largest block's part."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(bound.anatomy.vocab, (samples, length), generator=generator)
    part = 1 + max(range(bound.anatomy.layers), key=lambda i: _size(bound, i))
    return Execution(bound, Checkpoint(bound.folder), ids, work, Silence(), lambda: False), part


def _timed(bound: Plan, samples: int, length: int, work: Path) -> tuple[float, float]:
    """Return what the largest block and what the embedding and the head take [s]."""
    execution, part = _execution(bound, samples, length, work)
    began = time.perf_counter()
    streams = execution.enter()
    entered = time.perf_counter()
    onward = execution.through(part, streams)
    through = time.perf_counter()
    execution.leave(onward)
    return through - entered, time.perf_counter() - through + entered - began


def _size(bound: Plan, layer: int) -> int:
    return sum(p.site.shape[0] * p.site.shape[1] for p in bound.of_layer(layer))


def _main(source: str, work: str, samples: str, length: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    text = (Path(work) / "recipe.yaml").read_text(encoding="utf-8")
    bound = plan(loads(text), opened(Path(source), dense=True))
    print(json.dumps(_tried(bound, int(samples), int(length), Path(work))))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
