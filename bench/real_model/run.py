"""SmolLM2-135M-Instruct beside llama.cpp, llm-compressor and AutoRound: whole files, same weights, same text.

    python bench/real_model/run.py WORK --whet VENV --llama VENV --calibration calibration.txt \
        --valid wikitext2-valid.txt valid.txt [--only 'whet *'] [--time 20m] \
        [--llm-compressor VENV] [--turns 3]

WORK keeps the source folder, the files and what was measured. Each row is made once, its time and peak
memory those of the process that made it; then all rows are judged by `judge.py` and timed in turns
(decode after 64 tokens, prefill of 256). With `--turns` folders are made so many times, all in turn, and
`seconds` is the median; `seconds_each` lists them. Rows are appended to `bench/results/real-model.jsonl`.
Standard library only.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any

from reference import reference_model

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "real-model.jsonl"
SAMPLES = 64  # calibration windows of 512 tokens
TYPES = ("Q4_K_M", "Q3_K_M", "IQ4_XS")
RECIPES = ("near-lossless", "balanced", "small", "int8", "int4", "int4-fast", "int3")
SIZES = ("120MB", "105.5MB", "93.5MB", "90.9MB", "75MB", "60MB")
ROUNDS = 5
ENGINES = ("whet", "llama.cpp")  # tools that also run what they make


@dataclass(frozen=True)
class Row:
    """A file or folder, and how it was made."""

    tool: str
    setting: str
    path: Path
    facts: dict[str, Any]
    command: tuple[str, ...] = ()  # that makes it, if it can be made again by itself

    @property
    def name(self) -> str:
        """What `--only` matches."""
        return f"{self.tool} {self.setting}"


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    work: Path
    whet: Path
    llama: Path
    calibration: Path
    valid: tuple[Path, ...]
    windows: int
    time: str
    only: tuple[str, ...]
    llm_compressor: Path | None = None
    turns: int = 1

    def wanted(self, name: str) -> bool:
        """Return whether a row is asked for."""
        return any(fnmatchcase(name, pattern) for pattern in self.only)

    def python(self, venv: Path) -> str:
        """Return the interpreter of an environment."""
        return str(venv / "bin" / "python")


def made(command: list[str]) -> dict[str, float]:
    """Run a command; return its wall time [s] and the peak memory of its processes [byte]."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "processor_seconds": processor}


def folder_bytes(path: Path) -> int:
    """Return the size of the weight files."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(f.stat().st_size for f in path.glob("*.safetensors"))
    )


def run_peak(folder: Path) -> float | None:
    """Return the peak resident size that a folder's own records tell [byte]."""
    lines = (folder / "run.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    peaks = [row["facts"]["peak_rss"]["value"] for row in found if "peak_rss" in row["facts"]]
    return max(peaks, default=None)


def source(bench: Bench) -> Path:
    """Return the original as a folder in bfloat16."""
    out = bench.work / "hf"
    if not out.exists():
        command = [bench.python(bench.whet), "-m", "whet", "compress", str(reference_model())]
        subprocess.run(
            [*command, "--recipe", "plain", "-o", str(out)], check=True, stdout=sys.stderr
        )
    return out


def with_llamacpp(bench: Bench) -> list[Row]:
    """Return llama.cpp's files."""
    kinds = [kind for kind in TYPES if bench.wanted(f"llama.cpp {kind} imatrix")]
    files, squares = bench.work / "llama", bench.work / "importance.npz"
    if not kinds:
        return []
    if not squares.exists():
        words = ["--importance", str(source(bench)), str(bench.calibration), str(SAMPLES)]
        command = [bench.python(bench.whet), str(HERE / "judge.py"), *words, str(squares)]
        subprocess.run(command, check=True)
    words = [str(reference_model()), str(squares), str(files), *kinds]
    command = [bench.python(bench.llama), str(HERE / "llamacpp_files.py"), *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Row(
            "llama.cpp",
            f"{one['kind']} imatrix",
            files / f"{one['kind']}.gguf",
            {"seconds": one["seconds"]},
        )
        for one in told
    ]


def with_whet(bench: Bench) -> list[Row]:
    """Return our folders: one for each recipe, and what a search finds at each size."""
    rows: list[Row] = []
    base = [bench.python(bench.whet), "-m", "whet"]
    text = ["--calibration", str(bench.calibration), "--set", f"calibration.samples={SAMPLES}"]
    for recipe in RECIPES:
        if bench.wanted(f"whet {recipe}"):
            out = bench.work / f"whet-{recipe}"
            words = ["compress", str(source(bench)), "--recipe", recipe, *text, "-o", str(out)]
            rows.append(_ours(recipe, [*base, *words, "--overwrite"], out))
    for size in SIZES:
        if bench.wanted(f"whet search {size}"):
            out = bench.work / f"whet-search-{size}"
            words = ["search", str(source(bench)), "--max-size", size, "--time", bench.time]
            command = [*base, *words, *text[:2], "-o", str(out), "--overwrite"]
            rows.append(_ours(f"search {size}", command, out))
    return rows


def _ours(setting: str, command: list[str], out: Path) -> Row:
    facts: dict[str, Any] = made(command)
    if (peak := run_peak(out)) is not None:
        facts["peak_bytes"] = peak
    return Row("whet", setting, out, facts, tuple(command))


def with_llmcompressor(bench: Bench) -> list[Row]:
    """Return its GPTQ in groups of 64, calibrated on as many tokens; embedding and head stay as they are.

    In float32, which is twice as fast as bfloat16 on processors that do not multiply that.
    """
    if bench.llm_compressor is None or not bench.wanted("llm-compressor GPTQ int4-g64"):
        return []
    out, job = bench.work / "llm-compressor-int4", bench.work / "llm-compressor-int4.json"
    places = {"model": source(bench), "calibration": bench.calibration.resolve(), "out": out}
    sizes = {"bits": 4, "group": 64, "samples": SAMPLES, "length": 512}
    options = {"method": "gptq", "symmetric": True, "dtype": "float32"}
    order = {name: str(place) for name, place in places.items()} | sizes
    order |= {"package": "llmcompressor", "options": options}
    job.write_text(json.dumps(order), encoding="utf-8")
    adapter = HERE.parent / "peers" / "with_llmcompressor.py"
    command = (bench.python(bench.llm_compressor), str(adapter), str(job))
    facts: dict[str, Any] = made(list(command))
    told = json.loads((out / "peer.json").read_text(encoding="utf-8"))
    facts |= {"own_seconds": told["seconds"], "peak_bytes": told["peak_rss_gib"] * 2**30}
    return [Row("llm-compressor", "GPTQ int4-g64", out, facts, command)]


def make_again(bench: Bench, rows: list[Row]) -> None:
    """Make folders again, all in turn, and tell of each the median time and every one [s]."""
    again = [row for row in rows if row.command]
    for row in again:
        row.facts["seconds_each"] = [row.facts["seconds"]]
    for _ in range(bench.turns - 1):
        for row in again:
            row.facts["seconds_each"].append(made(list(row.command))["seconds"])
    for row in again:
        row.facts["seconds"] = median(row.facts["seconds_each"])


def judged(bench: Bench, rows: list[Row]) -> dict[Path, dict[str, Any]]:
    """Return the figures of every row on every text, by path and text."""
    found: dict[Path, dict[str, Any]] = {row.path: {} for row in rows}
    for text in bench.valid:
        words = [
            str(source(bench)),
            str(text),
            str(bench.windows),
            *(str(row.path) for row in rows),
        ]
        command = [bench.python(bench.whet), str(HERE / "judge.py"), *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            one = json.loads(line)
            found[Path(one.pop("candidate"))][one.pop("text")] = one
    return found


class Worker:
    """An engine in a process of its own that waits for its turn."""

    def __init__(self, python: str, script: str, model: Path, cache: str) -> None:
        command = [python, str(HERE.parent / "speed" / script), str(model), "2", cache]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        self.ready = json.loads(self.process.stdout.readline())

    def ask(self, request: str) -> float:
        """Return tokens a second."""
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        """Let the process go."""
        self.process.stdin.close()
        self.process.wait()


def timed(bench: Bench, rows: list[Row]) -> dict[Path, dict[str, float]]:
    """Return decode and prefill of each row [token/s]: medians of rounds in which all have a turn."""
    workers = {
        row.path: Worker(bench.python(bench.llama), "with_llamacpp.py", row.path, "f16")
        if row.tool == "llama.cpp"
        else Worker(bench.python(bench.whet), "with_whet.py", row.path, "bf16")
        for row in rows
        if row.tool in ENGINES
    }
    works = {"decode": "decode 112 48", "prefill": "prefill 256"}
    taken = {path: {name: [] for name in works} for path in workers}
    for _ in range(ROUNDS):
        for name, request in works.items():
            for path, worker in workers.items():
                taken[path][name].append(worker.ask(request))
    for worker in workers.values():
        worker.end()
    return {path: {name: median(v) for name, v in each.items()} for path, each in taken.items()}


def main() -> None:
    """Make, judge and time all rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--whet", type=Path, required=True, help="environment with whet")
    parser.add_argument("--llama", type=Path, required=True, help="with llama-cpp-python and gguf")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--valid", type=Path, nargs="+", required=True)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--time", default="20m", help="of each search")
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--llm-compressor", type=Path, help="environment with llmcompressor")
    parser.add_argument("--turns", type=int, default=1, help="times that each folder is made")
    asked = vars(parser.parse_args())
    bench = Bench(**asked | {name: tuple(asked[name]) for name in ("valid", "only")})
    bench.work.mkdir(parents=True, exist_ok=True)
    rows = with_llamacpp(bench) + with_whet(bench) + with_llmcompressor(bench)
    make_again(bench, rows)
    quality, speed = judged(bench, rows), timed(bench, rows)
    with RESULTS.open("a", encoding="utf-8") as results:
        for row in rows:
            line = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "tool": row.tool}
            line |= {"setting": row.setting, "bytes": folder_bytes(row.path), **row.facts}
            line |= {"quality": quality[row.path], **speed.get(row.path, {}), "rounds": ROUNDS}
            results.write(json.dumps(line) + "\n")
            print(json.dumps(line))


if __name__ == "__main__":
    main()
