"""How fast a folder generates alone, and while another engine lies idle in the same process.

    python bench/beside.py FOLDER OTHER [--rounds 3]

Appends a line of medians, in turn alone and beside, to `results/beside.jsonl`. Under a minute.
"""

import argparse
import gc
import json
from datetime import UTC, datetime
from pathlib import Path

from whet.base.machine import processor
from whet.measure.speed import speed
from whet.runtime.engine import Engine, load

RESULTS = Path(__file__).parent / "results" / "beside.jsonl"


def rate(engine: Engine) -> float:
    """Return the median [token/s]."""
    found = speed([engine], others=(), seconds=2.0, memory=False)
    return found[0].facts["decode"].value


def main() -> None:
    """Time in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    engine = load(asked.folder)
    alone, beside = [], []
    for _ in range(asked.rounds):
        alone.append(rate(engine))
        other = load(asked.other)
        beside.append(rate(engine))
        del other
        gc.collect()
    line = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor()[0],
        "threads": engine.executor.threads,
        "folder": asked.folder.name,
        "other": asked.other.name,
        "alone": [round(one) for one in alone],
        "beside": [round(one) for one in beside],
    }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"alone {line['alone']}, beside {line['beside']} token/s")


if __name__ == "__main__":
    main()
