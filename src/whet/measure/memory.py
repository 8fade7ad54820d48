"""Peak memory of a folder at work, in a process of its own, where nothing else has been."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from whet.base.errors import FitError, FolderError
from whet.base.machine import peak_rss, resident
from whet.base.quantity import Quantity

if TYPE_CHECKING:
    from whet.formats.keeping import Keeping
    from whet.runtime.engine import Engine

PROMPT, NEW = 64, 16  # [token]


def running(engine: "Engine", prompt: int = PROMPT) -> dict[str, Quantity]:
    """Return the peak memory of loading an engine's folder anew and writing a few tokens [byte].

    They follow a prompt of so many tokens, shortened where the context is too small. `peak_rss` is
    that of the whole process, Python (and torch, for the reference executor) included;
    `peak_rss_model` what came on top of them.
    """
    executor = engine.executor
    unpacked = executor.notes.get("weights") == "decoded at load"
    command = [sys.executable, "-m", "whet.measure.memory", str(engine.folder.absolute())]
    command += [executor.name, str(int(unpacked)), str(prompt), executor.notes.get("cache", "")]
    command += [str(engine.draft.folder.absolute()) if engine.draft else ""]
    found = json.loads(child(command, {"OMP_NUM_THREADS": str(executor.threads)}))
    how = f"a fresh process: load, read {prompt} tokens, write {NEW}"
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


def _main(folder: str, executor: str, unpacked: str, prompt: str, cache: str, draft: str) -> None:
    if executor == "reference":
        import torch  # so that only the model counts as growth

        assert torch.__version__
    from whet.runtime.engine import load

    before = resident()
    engine = load(
        folder,
        "reference" if executor == "reference" else "native",
        cache=cast("Keeping | None", cache or None),
        unpacked=unpacked == "1",
        draft=draft or False,
    )
    new = min(NEW, engine.context // 2)
    ids = [index % engine.vocab for index in range(min(int(prompt), engine.context - new))]
    list(engine.generate(ids, max_tokens=new, stop_ids=()))
    sys.stdout.write(json.dumps({"before": before, "peak": peak_rss()}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
