"""Peak memory of a folder at work, in a process of its own, where nothing else has been."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from whet.base.errors import FitError, FolderError
from whet.base.machine import peak_rss, resident
from whet.base.quantity import Quantity

PROMPT, NEW = 64, 16  # [token]


def running(folder: Path, threads: int = 1, *, unpacked: bool = False) -> dict[str, Quantity]:
    """Return the peak memory of loading a folder and writing a few tokens with it [byte].

    `peak_rss` is that of the whole process, Python and torch included; `peak_rss_model` what came
    on top of them.
    """
    command = [sys.executable, "-m", "whet.measure.memory", str(folder.absolute())]
    command += [str(threads), str(int(unpacked))]
    found = json.loads(child(command))
    how = f"a fresh process: load, read {PROMPT} tokens, write {NEW}"
    return {
        "peak_rss": Quantity(float(found["peak"]), "byte", how),
        "peak_rss_model": Quantity(
            float(found["peak"] - found["before"]), "byte", f"{how}; growth"
        ),
    }


def child(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Return what a process of ours writes, or raise what became of it."""
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=settings | dict(environment or {})
    )
    if done.returncode < 0:
        raise FitError(
            f"the measuring process was stopped by signal {-done.returncode}",
            "Most often there was too little memory: free some, or measure fewer windows.",
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FolderError(f"the measuring process failed: {last[:300]}")
    return done.stdout


def _main(folder: str, threads: str, unpacked: str) -> None:
    import torch

    from whet.runtime.engine import load

    torch.set_num_threads(int(threads))
    before = resident()
    engine = load(folder, unpacked=unpacked == "1")
    new = min(NEW, engine.context // 2)
    ids = [index % engine.vocab for index in range(min(PROMPT, engine.context - new))]
    list(engine.generate(ids, max_tokens=new, stop_ids=()))
    sys.stdout.write(json.dumps({"before": before, "peak": peak_rss()}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
