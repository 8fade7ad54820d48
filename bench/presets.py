"""Every preset on the demo model: size, bits, quality, time; appends to `results/presets.jsonl`.

    python bench/presets.py [PRESET…]

The README's table is made from that file. Needs a few minutes a preset on two cores.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from whet.api import recipes
from whet.base.quantity import Quantity
from whet.base.record import Record, append_records

RESULTS = Path(__file__).parent / "results" / "presets.jsonl"
KEPT = ("kl_mean", "kl_p99", "top1", "ppl", "ppl_original", "ppl_delta", "delta_p_rms")
SIZES = ("bytes", "source_bytes", "bits_per_weight")


def called(*words: str) -> dict[str, Record]:
    """Return the records about the whole model that a command gives, by step."""
    command = [sys.executable, "-m", "whet", *words, "--format", "json", "--offline"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Record] = {}
    for raw in json.loads(done.stdout)["records"]:
        facts = {name: Quantity(**fact) for name, fact in raw["facts"].items()}
        if not raw["site"]:
            found[raw["step"]] = Record(raw["step"], "", facts, None, raw["notes"])
    return found


def measured(preset: str, folder: Path) -> Record:
    """Compress the demo model by a preset, measure the result, and return the numbers."""
    began = time.perf_counter()
    compressed = called("compress", "demo", "--recipe", preset, "-o", str(folder))
    seconds = time.perf_counter() - began
    judged = called("measure", str(folder), "--against", "demo")
    quality, output = judged["measure"].facts, compressed["output"]
    ends = [f"{name}{end}" for name in KEPT for end in ("", "_low", "_high")]
    facts = {name: quality[name] for name in ends if name in quality}
    facts |= {name: output.facts[name] for name in SIZES if name in output.facts}
    facts["seconds"] = Quantity(seconds, "s", "whet compress, wall time")
    notes = {"dialect": output.notes["dialect"], "data": judged["measure"].notes["data"]}
    return Record(
        "preset", preset, facts, notes=notes | {"cpu": compressed["environment"].notes["cpu"]}
    )


def main(presets: list[str]) -> None:
    """Measure the named presets, or all."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for preset in presets or [entry.name for entry in recipes()]:
        with tempfile.TemporaryDirectory() as place:
            record = measured(preset, Path(place) / preset)
        append_records(RESULTS, [record])
        kl, seconds = record.facts["kl_mean"].value, record.facts["seconds"].value
        print(f"{preset}: KL {kl:.5f} nat, {seconds:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
