"""Searches beside uniform recipes: at the size of each, and at bits per weight; to `results/search.jsonl`.

    python bench/search.py MODEL CALIBRATION VALIDATION WORK [ROW…]

Rows are names of presets (a search gets the size of its result as the limit) and bits per weight
such as `3.5`. MODEL may be `demo`. All searches share one sweep in WORK. About 5 minutes for that on
two cores, then about 2 a row.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from whet.base.quantity import Quantity
from whet.base.record import Record, append_records

RESULTS = Path(__file__).parent / "results" / "search.jsonl"
ROWS = ("int2", "int3", "int4", "int8", "3.0", "3.5", "4.0")


def called(*words: str) -> list[Record]:
    """Return the records that a command gives."""
    command = [sys.executable, "-m", "whet", *words, "--format", "json", "--offline"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [
        Record(
            raw["step"],
            raw["site"],
            {name: Quantity(**fact) for name, fact in raw["facts"].items()},
            raw.get("fallback"),
            raw.get("notes", {}),
        )
        for raw in json.loads(done.stdout)["records"]
    ]


def one(records: list[Record], step: str) -> Record:
    """Return the first record of a step."""
    return next(record for record in records if record.step == step)


def searched(row: str, asked: argparse.Namespace, *limit: str) -> Record:
    """Search within a limit; return what was predicted and measured."""
    began, out = time.perf_counter(), asked.work / f"found-{row}"
    words = ["search", asked.model, *limit, "--calibration", asked.calibration]
    words += ["--data", asked.validation, "--sweep", str(asked.work / "sweep"), "--overwrite"]
    words += ["--no-structures", "--time", asked.time, "-o", str(out)]
    found = one(called(*words), "search")
    seconds = Quantity(time.perf_counter() - began, "s", "whet search, wall time, sweep shared")
    return Record("search", row, dict(found.facts) | {"wall_seconds": seconds}, notes=found.notes)


def uniform(row: str, asked: argparse.Namespace) -> tuple[Record, int]:
    """Compress by a preset; return its quality, and the size of its weights [byte]."""
    out = asked.work / row
    words = ["--recipe", row, "--calibration", asked.calibration, "-o", str(out), "--overwrite"]
    output = one(called("compress", asked.model, *words), "output")
    judged = called("measure", str(out), "--against", asked.model, "--data", asked.validation)
    quality = one(judged, "measure").facts
    facts = {name: quality[name] for name in ("kl_mean", "top1", "ppl", "ppl_original")}
    facts["bytes"] = output.facts["bytes"]
    return Record("uniform", row, facts), int(output.facts["bytes"].value)


def main() -> None:
    """Measure the named rows, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("model", "calibration", "validation"):
        parser.add_argument(name)
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="*", default=ROWS)
    parser.add_argument("--time", default="6m", help="of each search")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for row in asked.rows:
        if row.replace(".", "").isdigit():
            records = [searched(row, asked, "--max-bpw", row)]
        else:
            before, size = uniform(row, asked)
            records = [before, searched(row, asked, "--max-size", str(size))]
            ratio = records[1].facts["kl_measured"].value / before.facts["kl_mean"].value
            print(f"{row}: KL {before.facts['kl_mean'].value:.5f}, found ÷ uniform {ratio:.3f}")
        append_records(RESULTS, records)
        facts = records[-1].facts
        print(f"{row}: KL {facts['kl_measured'].value:.5f} nat, predicted "
              f"{facts['kl_predicted'].value:.5f}, {facts['size_measured'].value:.0f} bytes")  # fmt: skip


if __name__ == "__main__":
    main()
