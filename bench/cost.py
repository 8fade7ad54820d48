"""Time and memory of plain GPTQ (int4-g128, symmetric) on the 1.1 G shape, beside llm-compressor.

Each line of the output is one run as a whole process: wall time, processor time and the largest
resident size, from the command to the saved folder. Ours also reloads and checks what it has
written; that is counted. Shapes are made by ``shape.py`` in the work folder::

    python bench/cost.py WORK --whet VENV --peer VENV --tokenizer FOLDER --layers 22
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
PLAIN = ("sweeps=0", "alpha=0", "alpha_down=0", "rho=0", "format=int4-g128")


def main() -> None:
    """Run what was asked for, and append a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for shapes and results")
    parser.add_argument("--whet", type=Path, required=True, help="environment that has whet")
    parser.add_argument("--peer", type=Path, help="environment that has llm-compressor")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with a tokenizer")
    parser.add_argument("--layers", type=int, nargs="+", default=[22], help="sizes of the model")
    parser.add_argument("--samples", type=int, default=32, help="calibration windows of 512 tokens")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cost.jsonl")
    asked = parser.parse_args()
    for layers in asked.layers:
        shape = _shape(asked.work, layers, asked.tokenizer)
        runs = {"whet": _ours(asked.whet, shape, asked.work / "out", asked.samples)}
        if asked.peer:
            runs["llm-compressor"] = _theirs(asked.peer, shape, asked.work / "out", asked.samples)
        for tool, command in runs.items():
            row = {"tool": tool, "layers": layers, "samples": asked.samples, "length": 512}
            row |= _timed(command, asked.work / f"{tool}.log")
            _append(asked.out, row)
            shutil.rmtree(asked.work / "out", ignore_errors=True)


def _shape(work: Path, layers: int, tokenizer: Path) -> Path:
    folder = work / f"shape-{layers}"
    if not (folder / "config.json").is_file():
        order = [folder, "--tokenizer", tokenizer, "--layers", layers]
        subprocess.run([sys.executable, HERE / "shape.py", *map(str, order)], check=True)
    return folder


def _ours(environment: Path, shape: Path, out: Path, samples: int) -> list[str]:
    settings = [f"gptq.{setting}" for setting in PLAIN] + [f"calibration.samples={samples}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    program = str(environment / "bin" / "whet")
    return [program, "compress", str(shape), "--recipe", "int4", *sets, "-o", str(out)]


def _theirs(environment: Path, shape: Path, out: Path, samples: int) -> list[str]:
    script = HERE / "peers" / "llmcompressor_speed.py"
    order = [shape, "--save", out, "--samples", samples]
    return [str(environment / "bin" / "python"), str(script), *map(str, order)]


def _timed(command: list[str], log: Path) -> dict[str, float | str]:
    """Run a command; return what it took."""
    began = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed; see {log}")
    return {
        "wall_seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_gib": round(used.ru_maxrss / 2**20, 3),
        "load_average": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _append(out: Path, row: dict[str, float | str | int]) -> None:
    line = json.dumps(row)
    print(line, flush=True)
    with out.open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")


if __name__ == "__main__":
    main()
