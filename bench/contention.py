"""How much longer a command takes beside other work: beside itself, and beside busy threads.

    python bench/contention.py SOURCE --calibration calibration.txt [--recipe int4-fast] [--rounds 3]

With two processors and fair shares, two runs at once take 2 × the time of one alone, and so does one
beside two busy threads. Appends a line to `results/contention.jsonl`. Processor time tells whether more
work is done, or whether threads only wait; nothing else should run meanwhile. Linux.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from whet.base.machine import cores, processor

RESULTS = Path(__file__).parent / "results" / "contention.jsonl"
BUSY = "busy"  # the first argument of a process that only keeps threads busy
RATIO_BAR = 2.2  # at most, beside one other busy process
BLOCK = bytes(1 << 20)  # what a busy thread digests, without holding the interpreter's lock
START_S = 1.0  # until busy threads are under way


def keep_busy(threads: int) -> None:
    """Keep so many threads busy until the process is ended."""

    def digest() -> None:
        while True:
            hashlib.sha256(BLOCK)

    for _ in range(threads):
        threading.Thread(target=digest, daemon=True).start()
    threading.Event().wait()


@contextmanager
def beside(threads: int) -> Generator[None]:
    """Let a process with so many busy threads run meanwhile."""
    command = [sys.executable, str(Path(__file__)), BUSY, str(threads)]
    other = subprocess.Popen(command)
    try:
        time.sleep(START_S)
        yield
    finally:
        other.kill()
        other.wait()


def times(command: list[str], count: int) -> list[dict[str, float]]:
    """Run a command so many times at once; return wall and processor time of each [s]."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outs = [[*command, "-o", f"{folder}/{number}"] for number in range(count)]
        running = {_started(out) for out in outs}
        found: list[dict[str, float]] = []
        while running:
            pid, status, usage = os.wait4(-1, 0)
            if pid not in running:
                continue
            running.remove(pid)
            if status:
                raise RuntimeError(f"{' '.join(command)} ended with status {status}")
            wall, spent = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
            found.append({"seconds": wall, "processor_seconds": spent})
    return found


def _started(command: list[str]) -> int:
    """Start a command that says nothing; return its number."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid


def measured(command: list[str]) -> dict[str, list[dict[str, float]]]:
    """Return the times of each case."""
    found = {"alone": times(command, 1), "two at once": times(command, 2)}
    for threads, case in ((1, "beside one busy thread"), (2, "beside two busy threads")):
        with beside(threads):
            found[case] = times(command, 1)
    return found


def line_of(rounds: list[dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, float]]:
    """Return medians over rounds, of the slower run where there are two, and ratios to alone."""
    found: dict[str, dict[str, float]] = {}
    for case in rounds[0]:
        slowest = [max(one[case], key=lambda run: run["seconds"]) for one in rounds]
        found[case] = {name: median(run[name] for run in slowest) for name in slowest[0]}
        found[case]["ratio"] = found[case]["seconds"] / found["alone"]["seconds"]
    return found


def main() -> None:
    """Measure every case in turn, and append a line."""
    if sys.argv[1:2] == [BUSY]:
        keep_busy(int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--recipe", default="int4-fast")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "whet",
        "compress",
        str(asked.source),
        "--recipe",
        asked.recipe,
    ]
    command += ["--calibration", str(asked.calibration)] if asked.calibration else []
    cases = line_of([measured(command) for _ in range(asked.rounds)])
    line = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor()[0],
        "cores": cores(),
        "source": asked.source.name,
        "recipe": asked.recipe,
        "rounds": asked.rounds,
        "cases": cases,
    }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    for case, one in cases.items():
        missed = " above the bar" if one["ratio"] > RATIO_BAR else ""
        print(
            f"{case:24} {one['seconds']:7.1f} s, processor {one['processor_seconds']:7.1f} s, "
            f"{one['ratio']:.2f} ×{missed}"
        )


if __name__ == "__main__":
    main()
