"""How fast whet's engine is beside llama.cpp and OpenVINO: same shape, same minutes, in turns.

For each row of work every engine is loaded in a process and an environment of its own and waits;
then come the rounds: the bandwidth of memory, and each engine once. Given are medians, and the
median over the rounds of the ratio within one. A line for each row is appended to the results::

    python bench/speed/run.py WORK --whet VENV --llama VENV --openvino VENV --rounds 5 [--only NAME]

WORK holds the models, which are made there if they are missing: `whet-FORMAT` (bench/coded.py),
`gguf/KIND.gguf` (gguf_shape.py), `hf` (bench/shape.py) and `openvino` (openvino_shape.py).
Standard library only.
"""

import argparse
import json
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "speed.jsonl"
HEADS = {"int8-channel": "int8-channel", "bf16": "bf16"}  # else as wide as llama.cpp's Q6_K
HEAD = "int6-g32"


@dataclass(frozen=True)
class Engine:
    """A tool, its model, and what keys and values are kept in."""

    tool: str
    model: str
    cache: str = ""

    @property
    def name(self) -> str:
        """What the results call it."""
        return " ".join(word for word in (self.tool, self.model, self.cache) if word)


@dataclass(frozen=True)
class Row:
    """Work, ours and the peers that do it, and how many times as fast as the best we want to be."""

    name: str
    work: str
    ours: Engine
    peers: tuple[Engine, ...]
    bar: float


def _llama(kind: str, cache: str = "f16") -> Engine:
    return Engine("llama.cpp", kind, cache)


def _whet(kind: str, cache: str = "bf16") -> Engine:
    return Engine("whet", kind, cache)


OPENVINO = Engine("openvino", "int4-g32")
MEMORY = Engine("memory", "-")
OPERATIONS = (
    2 * 22 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 5632)
)  # of a token, but the head
DECODE = "decode 64 48"
ROWS = (
    Row("decode int4", DECODE, _whet("int4-g32"), (_llama("Q4_0"), OPENVINO), 1.35),
    Row("decode int8", DECODE, _whet("int8-channel"), (_llama("Q8_0"),), 1.25),
    Row("decode int3", DECODE, _whet("int3-g64"), (_llama("Q3_K_M"),), 1.6),
    Row("decode int2", DECODE, _whet("int2-g64"), (_llama("Q2_K"),), 1.5),
    Row("decode bf16", DECODE, _whet("bf16"), (_llama("BF16"),), 1.15),
    Row(
        "decode at 2048",
        "decode 2048 32",
        _whet("int4-g32", "int8"),
        (_llama("Q4_0", "q8_0"),),
        1.35,
    ),
    Row("prefill 512", "prefill 512", _whet("int4-g32"), (_llama("Q4_0"), OPENVINO), 1.4),
    Row("8 sequences", "batch 8 24", _whet("int4-g32"), (_llama("Q4_0"),), 1.5),
)


class Worker:
    """An engine in a process of its own."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.about: dict[str, Any] = self._answer(command)

    def ask(self, request: str) -> float:
        """Return what a request gives."""
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return float(self._answer(request))

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self, asked: object) -> Any:  # noqa: ANN401 - what JSON holds
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()}: {asked}")
        return json.loads(line)


class Bench:
    """Where models and environments are."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.work: Path = given.work
        self.threads: int = given.threads
        self.pythons = {
            "whet": given.whet / "bin" / "python",
            "memory": given.whet / "bin" / "python",
            "llama.cpp": given.llama / "bin" / "python",
            "openvino": given.openvino / "bin" / "python" if given.openvino else None,
        }

    def make(self, engine: Engine) -> None:
        """Make a model that is missing."""
        path = self._model(engine)
        if not path.exists():
            for command in self._making(engine, path):
                subprocess.run([str(word) for word in command], check=True)

    def open(self, engine: Engine) -> Worker:
        """Return a worker that has loaded its model."""
        script = HERE / f"with_{engine.tool.replace('.', '')}.py"
        words = [self.pythons[engine.tool], script, self._model(engine), self.threads]
        return Worker([str(word) for word in (*words, engine.cache) if word != ""])

    def _model(self, engine: Engine) -> Path:
        if engine.tool == "whet":
            return self.work / f"whet-{engine.model}"
        if engine == MEMORY:
            return Path("-")
        if engine.tool == "llama.cpp":
            return self.work / "gguf" / f"{engine.model}.gguf"
        return self.work / "openvino"

    def _making(self, engine: Engine, path: Path) -> list[list[str | Path | None]]:
        python, bench = self.pythons[engine.tool], HERE.parent
        if engine.tool == "whet":
            head = HEADS.get(engine.model, HEAD)
            return [[python, bench / "coded.py", path, "--format", engine.model, "--head", head]]
        if engine.tool == "llama.cpp":
            kinds = [] if engine.model == "BF16" else [engine.model]
            return [[python, HERE / "gguf_shape.py", path.parent, *kinds]]
        shape = self.work / "hf"
        return [
            [self.pythons["whet"], bench / "shape.py", shape],
            [python, HERE / "openvino_shape.py", shape, path],
        ]


def measured(row: Row, bench: Bench, rounds: int) -> dict[str, Any]:
    """Return what a row gave."""
    peers = [peer for peer in row.peers if bench.pythons[peer.tool] is not None]
    for engine in (row.ours, *peers):
        bench.make(engine)
    bench.open(row.ours).end()  # lays its weights out, once
    workers = {engine.name: bench.open(engine) for engine in (row.ours, *peers)}
    ours, memory = workers[row.ours.name], bench.open(MEMORY)
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        bandwidth = memory.ask("bandwidth")
        products = memory.ask("products") if row.work.startswith("prefill") else 0.0
        found = {name: worker.ask(row.work) for name, worker in workers.items()}
        if number == 0:
            continue  # caches of layouts and pages are warm from now on
        figures["bandwidth [GB/s]"].append(bandwidth / 1e9)
        best = max(found[peer.name] for peer in peers)
        figures["ratio to the best peer"].append(found[row.ours.name] / best)
        if row.work.startswith("decode"):
            share = found[row.ours.name] * ours.about["bytes a token"] / bandwidth
            figures["part of the bound of bandwidth"].append(share)
        if products:
            share = found[row.ours.name] * OPERATIONS / products
            figures["part of torch's int8 products"].append(share)
        for name, rate in found.items():
            figures[f"{name} [token/s]"].append(rate)
    held = {f"{name} [MB]": worker.ask("peak") / 1e6 for name, worker in workers.items()}
    for worker in (*workers.values(), memory):
        worker.end()
    medians = {name: round(median(values), 3) for name, values in figures.items()}
    load = {name: round(worker.about["seconds to load"], 2) for name, worker in workers.items()}
    return {
        "row": row.name,
        "bar": row.bar,
        "rounds": rounds,
        "threads": bench.threads,
        **medians,
        "seconds to the first token": load,
        "peak memory": {name: round(value) for name, value in held.items()},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--whet", type=Path, required=True, help="environment with whet")
    parser.add_argument("--llama", type=Path, required=True, help="with llama-cpp-python and gguf")
    parser.add_argument("--openvino", type=Path, help="with optimum-intel, openvino and nncf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="*", help="rows, as a pattern")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    bench = Bench(given)
    for row in ROWS:
        if fnmatchcase(row.name, given.only):
            found = measured(row, bench, given.rounds)
            print(json.dumps(found, indent=1))
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
