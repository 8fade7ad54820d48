"""Quality of the peers' compressed models, measured by one common evaluator.

Every peer gets its own virtual environment (made on first use), quantizes the block linears of one
model in it, and hands over the dequantized weights as a dense float32 folder; one evaluator then
compares each with the original. So no kernel takes part. Needs only the standard library::

    python bench/peers/run.py --model MODEL --calibration calibration.txt --valid valid.txt

A row of our own comes from a command line in an environment that has whet; its folder is loaded
with ``import whet``. ``{model}``, ``{out}`` and ``{calibration}`` are filled in::

    python bench/peers/run.py … --whet-env VENV --whet 'int4=compress {model} --out {out}'
"""

import argparse
import fnmatch
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from packed import bits_per_weight
from roster import EVALUATOR, PEERS, TORCH, Peer, Setting

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    model: Path
    calibration: Path
    valid: Path
    envs: Path
    work: Path
    samples: int
    windows: int
    length: int
    pip: tuple[str, ...]
    threads: int | None


def environment(bench: Bench, name: str, pins: tuple[str, ...]) -> Path:
    """The interpreter of an environment with these pins; made anew when they changed."""
    folder = bench.envs / name
    python, stamp = folder / "bin" / "python", folder / "pins.txt"
    wanted = "\n".join((TORCH, *pins))
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    say(f"installing {folder}")
    venv.create(folder, clear=True, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(TORCH + "\n", encoding="utf-8")
    for group in ((TORCH,), pins):
        called([python, "-m", "pip", "install", "--quiet", "-c", constraints, *bench.pip, *group])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def called(command: list[str | Path], threads: int | None = None) -> str:
    """The standard output of a command; its messages are shown only when it fails.

    Waiting threads yield the processor, so that a busy machine delays the work but never stalls it.
    """
    settings = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if threads:
        settings["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=settings, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{shlex.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        )
    return done.stdout


def measured(
    bench: Bench, python: Path, candidate: Path, module: str | None = None
) -> dict[str, Any]:
    """The common evaluator's figures for a folder."""
    command: list[str | Path] = [
        python,
        HERE / "divergence.py",
        "--original",
        bench.model,
        "--candidate",
        candidate,
    ]
    command += [
        "--text",
        bench.valid,
        "--windows",
        str(bench.windows),
        "--length",
        str(bench.length),
    ]
    command += ["--import", module] if module else []
    return json.loads(called(command, bench.threads).splitlines()[-1])


def peer_record(bench: Bench, peer: Peer, setting: Setting) -> dict[str, Any]:
    """Quantize with a peer, then measure."""
    out = bench.work / f"{peer.tool} {setting.name}".replace(" ", "-").replace("=", "")
    job = {
        **{name: str(getattr(bench, name).resolve()) for name in ("model", "calibration")},
        "out": str(out),
        "package": peer.package,
        "bits": setting.bits,
        "group": setting.group,
        "samples": bench.samples,
        "length": bench.length,
        "options": setting.options,
    }
    order = out.with_suffix(".json")
    order.write_text(json.dumps(job), encoding="utf-8")
    python = environment(bench, peer.tool, peer.pins)
    started = time.perf_counter()
    called([python, HERE / peer.adapter, order], bench.threads)
    wall = time.perf_counter() - started
    facts = json.loads((out / "peer.json").read_text(encoding="utf-8"))
    evaluator = environment(bench, "evaluator", EVALUATOR)
    head = {"tool": peer.tool, "version": facts.pop("version"), "setting": setting.name}
    size = {"bits_per_weight": facts.pop("bits_per_weight", setting.bits_per_weight)}
    return head | size | measured(bench, evaluator, out) | facts | {"wall_seconds": wall}


def own_record(bench: Bench, folder: Path, name: str, template: str) -> dict[str, Any]:
    """Compress with a ``whet`` command line, then measure its folder in the same environment."""
    out = bench.work / f"whet-{name}".replace(" ", "-")
    places = {"model": bench.model, "out": out, "calibration": bench.calibration}
    command: list[str | Path] = [folder / "bin" / "whet"]
    command += [part.format(**places) for part in shlex.split(template)]
    started = time.perf_counter()
    called(command, bench.threads)
    wall = time.perf_counter() - started
    python = folder / "bin" / "python"
    version = called(
        [python, "-c", "from importlib.metadata import version; print(version('whet'))"]
    ).strip()
    head = {"tool": "whet", "version": version, "setting": name, "command": template}
    size = {"bits_per_weight": bits_per_weight(out, bench.model)}
    return (
        head | size | measured(bench, python, out, "whet") | {"seconds": wall, "wall_seconds": wall}
    )


def table(records: list[dict[str, Any]]) -> str:
    """The records as a Markdown table, from many bits to few and from good to bad."""
    rows = [
        "| bpw | tool | setting | KL [nat] | ± | top-1 | ppl | s |",
        "|--:|---|---|--:|--:|--:|--:|--:|",
    ]
    rows += [
        f"| {r['bits_per_weight']:.3f} | {r['tool']} {r['version']} | {r['setting']} "
        f"| {r['kl_nat']:.5f} | {r['kl_nat_standard_error']:.5f} | {r['top1']:.4f} "
        f"| {r['ppl']:.3f} | {r['seconds']:.0f} |"
        for r in sorted(records, key=lambda r: (-r["bits_per_weight"], r["kl_nat"]))
    ]
    return "\n".join(rows)


def say(message: str) -> None:
    """Print what is going on, apart from the results."""
    print(message, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of the uncompressed model"
    )
    parser.add_argument("--calibration", type=Path, required=True, help="text for calibration")
    parser.add_argument(
        "--valid", type=Path, required=True, help="text for measuring, unseen by calibration"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE.parent / "results" / "peers-quality.jsonl",
        help="appended to",
    )
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "whet-bench" / "envs")
    parser.add_argument(
        "--work", type=Path, help="keep the quantized folders here (default: a temporary folder)"
    )
    parser.add_argument(
        "--only",
        action="append",
        help="pattern over 'tool setting', as 'AutoRound int3*'; repeatable",
    )
    parser.add_argument(
        "--samples", type=int, default=128, help="calibration windows, evenly spaced over the text"
    )
    parser.add_argument(
        "--windows", type=int, default=120, help="windows measured, from the start of the text"
    )
    parser.add_argument("--length", type=int, default=512, help="tokens in a window")
    parser.add_argument("--threads", type=int, help="threads of every process (default: torch's)")
    parser.add_argument(
        "--pip",
        default="",
        help="further options for pip install, such as an index with CPU builds",
    )
    parser.add_argument("--whet-env", type=Path, help="environment that has whet")
    parser.add_argument(
        "--whet", action="append", default=[], metavar="NAME=ARGUMENTS", help="a row of our own"
    )
    parser.add_argument("--list", action="store_true", help="name the settings and stop")
    arguments = parser.parse_args()
    if arguments.whet and not arguments.whet_env:
        parser.error("--whet needs --whet-env")
    return arguments


def main() -> None:
    """Measure the chosen settings and print their table."""
    arguments = parsed()
    with tempfile.TemporaryDirectory() as scratch:
        work = (arguments.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        chosen = {
            name: job for name, job in jobs(arguments, work).items() if wanted(name, arguments)
        }
        if arguments.list:
            print("\n".join(chosen))
            return
        records = carried_out(chosen, shared(arguments), arguments.out)
        print(table(records))
        if len(records) < len(chosen):
            sys.exit(1)


def jobs(arguments: argparse.Namespace, work: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every setting of every peer, and our own rows, by 'tool setting'."""
    names = ("model", "calibration", "valid", "envs", "samples", "windows", "length", "threads")
    bench = Bench(
        **{name: getattr(arguments, name) for name in names},
        work=work,
        pip=tuple(shlex.split(arguments.pip)),
    )
    found: dict[str, Callable[[], dict[str, Any]]] = {
        f"{peer.tool} {setting.name}": partial(peer_record, bench, peer, setting)
        for peer in PEERS
        for setting in peer.settings
    }
    for row in arguments.whet:
        name, _, template = row.partition("=")
        found[f"whet {name}"] = partial(own_record, bench, arguments.whet_env, name, template)
    return found


def wanted(name: str, arguments: argparse.Namespace) -> bool:
    """Whether a pattern of the command line names this setting."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only or ("*",))


def shared(arguments: argparse.Namespace) -> dict[str, Any]:
    """What every record says of the circumstances."""
    counts = {
        name: getattr(arguments, name) for name in ("samples", "windows", "length", "threads")
    }
    files = {name: getattr(arguments, name).name for name in ("model", "calibration", "valid")}
    return counts | files


def carried_out(
    chosen: dict[str, Callable[[], dict[str, Any]]], facts: dict[str, Any], out: Path
) -> list[dict[str, Any]]:
    """Every record, appended to the file as soon as it exists; a failure is passed over."""
    out.parent.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for name, job in chosen.items():
        say(name)
        try:
            record = job() | facts | {"when": datetime.now(UTC).isoformat(timespec="seconds")}
        except (RuntimeError, OSError) as error:
            say(f"{name} failed: {error}")
            continue
        records.append(record)
        with out.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
    return records


if __name__ == "__main__":
    main()
