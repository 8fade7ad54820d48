"""Searches beside uniform recipes: at the size of each, and at bits per weight; to `results/search.jsonl`.

    python bench/search.py MODEL CALIBRATION VALIDATION WORK [ROW…]

Rows are names of presets (a search gets the size of its result as the limit), names with `@decode`
(it gets 97 % of how fast that generates; both are then timed in turn), and bits per weight such as
`3.5`. MODEL may be `demo`. All searches share one sweep in WORK. About 5 minutes for that on two cores,
then about 2 a row.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from whet.base.quantity import Quantity
from whet.base.record import Record, append_records
from whet.measure.speed import speed
from whet.runtime.engine import load
from whet.search.limits import PROMPT

RESULTS = Path(__file__).parent / "results" / "search.jsonl"
VARIES = 0.97  # of a rate: what timings of one folder differ by
PATIENCE = 20  # times that a disturbed timing is repeated
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


def decode(*folders: Path) -> list[float]:
    """Return how fast folders generate, timed in turn [token/s]; again while something disturbs."""
    for _ in range(PATIENCE):
        found = speed(
            [load(path) for path in folders], prompt=PROMPT, others=(), memory=False, seconds=3
        )
        mine = [record for record in found if record.step == "speed"]
        if not any("disturbed" in record.notes for record in mine):
            break
    return [record.facts["decode"].value for record in mine]


def as_large(row: str, asked: argparse.Namespace) -> list[Record]:
    """Search for the best of a preset's size; return both."""
    before, size = uniform(row, asked)
    return [before, searched(row, asked, "--max-size", str(size))]


def as_fast(row: str, asked: argparse.Namespace) -> list[Record]:
    """Search for the best that generates as fast as a preset; return both, timed in turn."""
    preset = row.removesuffix("@decode")
    before, _ = uniform(preset, asked)
    rate = decode(asked.work / preset)[0]
    after = searched(row, asked, "--min-decode", f"{VARIES * rate:.6g}tok/s")
    rates = decode(asked.work / preset, asked.work / f"found-{row}")
    return [_beside(one, row, rate) for one, rate in zip((before, after), rates, strict=True)]


def _beside(record: Record, row: str, rate: float) -> Record:
    timed = Quantity(rate, "token/s", "timed in turn with the other")
    return Record(
        record.step, row, dict(record.facts) | {"decode_beside": timed}, None, record.notes
    )


def measured(row: str, asked: argparse.Namespace) -> list[Record]:
    """Return the records of a row, that of the search last."""
    if row.replace(".", "").isdigit():
        return [searched(row, asked, "--max-bpw", row)]
    return as_fast(row, asked) if row.endswith("@decode") else as_large(row, asked)


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
        records = measured(row, asked)
        append_records(RESULTS, records)
        facts = records[-1].facts
        if len(records) > 1:
            before = records[0].facts["kl_mean"].value
            print(
                f"{row}: KL {before:.5f}, found ÷ uniform {facts['kl_measured'].value / before:.3f}"
            )
        print(f"{row}: KL {facts['kl_measured'].value:.5f} nat, predicted "
              f"{facts['kl_predicted'].value:.5f}, {facts['size_measured'].value:.0f} bytes")  # fmt: skip


if __name__ == "__main__":
    main()
