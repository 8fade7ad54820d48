"""The same GGUF file in whet and in llama.cpp, every type of blocks, in turns.

llama.cpp itself writes the files, from the reference model of bench/real_model (blocks that are already
quantized are decoded first), or from `--source`: that of bench/wide_gguf.py has rows into which every type
fits. In each round each engine decodes, then reads a prompt; medians over the rounds, and of the ratios
within them. A type that an engine does not write or read is named at the end::

    python bench/gguf_speed.py --llamacpp ENV/bin/python --files FOLDER

ENV has llama-cpp-python and gguf. A line of JSON is written for each type to `--out`.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
TYPES = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ1_S", "IQ1_M",
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "F16", "BF16",
    "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
)  # of llama.h, `llama_ftype`  # fmt: skip
PROMPT, CONTEXT, DECODED = 256, 64, 32  # tokens of a prompt; at the end of decoding, and decoded


@dataclass
class Engine:
    """A worker of bench/speed that serves one file, and the rates that it had [token/s]."""

    process: "subprocess.Popen[str]"
    decode: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)

    def ask(self, words: str) -> float:
        """Return the answer to a request."""
        assert self.process.stdin is not None
        print(words, file=self.process.stdin, flush=True)
        return float(json.loads(self.line()))

    def line(self) -> str:
        """Return the next line that the worker writes."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended")
        return line

    def one_round(self) -> None:
        """Decode, and read a prompt."""
        self.decode.append(self.ask(f"decode {CONTEXT} {DECODED}"))
        self.prefill.append(self.ask(f"prefill {PROMPT}"))


def started(python: Path, script: str, file: Path, threads: int, cache: str) -> Engine:
    """Return an engine that has loaded a file."""
    command = [str(python), str(HERE / "speed" / script), str(file), str(threads), cache]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE / "speed"
    )
    return Engine(process)


def quantized(python: Path, source: Path, folder: Path, kind: str) -> Path:
    """Return the file of a type, made unless it is there."""
    path = folder / f"{source.name.split('.')[0]}.{kind}.gguf"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        script = HERE / "speed" / "quantize_gguf.py"
        subprocess.run([str(python), str(script), str(source), str(part), kind], check=True)
        part.replace(path)
    return path


def compared(given: argparse.Namespace, kind: str, file: Path) -> dict[str, float | str]:
    """Return the rates of both engines on a file, and their ratios."""
    ours = started(Path(sys.executable), "with_whet.py", file, given.threads, "bf16")
    theirs = started(given.llamacpp, "with_llamacpp.py", file, given.threads, "f16")
    engines = (ours, theirs)
    try:
        for engine in engines:
            engine.line()  # what it says when it is ready
        for _ in range(given.rounds):
            for engine in engines:
                engine.one_round()
    finally:
        for engine in engines:
            engine.process.communicate()
    found: dict[str, float | str] = {"type": kind, "bytes": float(file.stat().st_size)}
    for name in ("decode", "prefill"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        found[f"{name} whet [token/s]"] = round(median(mine), 1)
        found[f"{name} llama.cpp [token/s]"] = round(median(other), 1)
        found[f"{name} ratio"] = round(median(a / b for a, b in zip(mine, other, strict=True)), 3)
    return found


def main() -> None:
    """Make the files, and time both engines on each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llamacpp", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--source", type=Path, help="a GGUF file; the reference model unless said")
    parser.add_argument("--files", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--types", nargs="*", default=TYPES, choices=TYPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gguf-speed.jsonl")
    given = parser.parse_args()
    command = [sys.executable, str(HERE / "real_model" / "reference.py")]
    source = given.source or Path(subprocess.check_output(command, text=True).strip())
    failed: list[str] = []
    with given.out.open("a", encoding="utf-8") as out:
        for kind in given.types:
            try:
                found = compared(given, kind, quantized(given.llamacpp, source, given.files, kind))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                failed.append(f"{kind}: {error}")
                continue
            print(json.dumps(found), file=out, flush=True)
            print(json.dumps(found), flush=True)
    if failed:
        sys.exit("not compared:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
