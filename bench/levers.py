"""What each lever costs in quality, beside its rivals; appends to `results/levers.jsonl`.

    python bench/levers.py MODEL CALIBRATION VALID ROW… [--seeds 0 1 2] [--keep DIR]
    python bench/levers.py --table

A row names a recipe below, and may be a pattern (`prune/2:4/*`). Each is calibrated on one text and
measured on another against MODEL, once for each seed; the seed chooses the windows and whatever a
method draws. `--keep` leaves the folders that were made below DIR. `--table` prints the mean and
standard deviation of the rows that the file holds.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import whet
from whet.base.quantity import Quantity
from whet.base.record import Record, append_records

RESULTS = Path(__file__).parent / "results" / "levers.jsonl"
KEPT = ("kl_mean", "ppl", "ppl_original", "top1")
SIZES = ("bytes", "bits_per_weight")
PATTERNS = ("2:4", "sparse50", "sparse70")
INT2 = {"use": "gptq", "format": "int2-g64-affine", "alpha": 1.0, "alpha_down": 1.0, "rho": 1.0}
SLIM = [{"use": "depth", "share": 0.125}, {"use": "ffn", "share": 0.25}]
WIDTHS = (736, 320, 288, 384, 608, 736, 768, 768)  # of books-7m, as `whet.search.widths` finds them
QUARTER = {
    "use": "student",
    "weights": "fresh",
    "layers": 4,
    "hidden": 128,
    "ffn": 704,
    "heads": 2,
    "kv_heads": 1,
}
Steps = list[dict[str, Any]]


def one(use: str, format_: str, **settings: object) -> Steps:
    """Return a recipe of one step."""
    return [{"use": use, "format": format_, **settings}]


def rows() -> dict[str, Steps]:
    """Return the steps of every row, by name."""
    criteria = ("magnitude", "wanda", "ria", "sparsegpt", "alps")
    found = {
        f"prune/{pattern}/{use}": one(use, f"{pattern}(bf16)")
        for pattern in PATTERNS
        for use in criteria
    }
    dense, coded = one("sparsegpt", "2:4(bf16)"), "2:4(int4-g64)"
    return found | {
        "prune/2:4/alps + reconstruct": [*one("alps", "2:4(bf16)"), {"use": "reconstruct"}],
        "prune/2:4/gradient": [
            {"use": "gradient", "pattern": "2:4"},
            *one("magnitude", "2:4(bf16)"),
        ],
        "prune/sparse70/wanda by outliers": one("wanda", "sparse70(bf16)", allocation="owl"),
        "joint/alps": one("alps", coded),
        "joint/sparsegpt, then gptq": [*dense, *one("gptq", coded)],
        "lowrank/int3": one("gptq", "int3-g64-affine"),
        "lowrank/int3 + lowrank-16": one("residual", "int3-g64-affine + lowrank-16"),
        "svd/plain": one("svd", "lowrank-1", size=0.8, norm="plain"),
        "svd/whitened": one("svd", "lowrank-1", size=0.8),
        "svd/whitened, no drift": one(
            "svd", "lowrank-1", size=0.8, alpha=0.0, alpha_down=0.0, rho=0.0
        ),
        "int2/gptq": [INT2],
        "int2/gptq + reconstruct": [INT2, {"use": "reconstruct"}],
        "int2/gptq + qat": [INT2, {"use": "qat", "codes": True, "batch": 4, "tokens": 3_000_000}],
        "prune/sparse50/magnitude by one ranking": one(
            "magnitude", "sparse50-tensor(bf16)", allocation="global"
        ),
        "structure/ffn": [{"use": "ffn", "share": 0.25}],
        "structure/ffn where it counts least": [{"use": "ffn", "channels": list(WIDTHS)}],
        **operators(),
        "structure/cut": SLIM,
        "structure/cut, distilled": [*SLIM, {"use": "distill", "tokens": 3_000_000, "lr": 5e-4}],
        **students(),
    }


def operators(tokens: int = 300_000) -> dict[str, Steps]:
    """Return other operators in place of a model's own, as they are and after recovery."""
    changes = {
        "relu": {"use": "activation", "to": "relu"},
        "window of 64": {"use": "window", "tokens": 64},
        "one key-value head": {"use": "gqa", "heads": 1},
    }
    recovery = {"use": "distill", "tokens": tokens, "lr": 5e-4}
    return {f"operators/{name}": [step] for name, step in changes.items()} | {
        f"operators/{name}, distilled": [step, recovery] for name, step in changes.items()
    }


def students(tokens: int = 1_000_000) -> dict[str, Steps]:
    """Return a fresh student of a quarter of the numbers, taught in several ways."""
    same = {"tokens": tokens, "lr": 2e-3}
    return {
        "student/text": [QUARTER, {"use": "finetune", **same}],
        "student/logits": [QUARTER, {"use": "distill", **same}],
        "student/logits and features": [QUARTER, {"use": "distill", "features": 1.0, **same}],
    }


def measured(row: str, seed: int, samples: int, place: Path, texts: argparse.Namespace) -> Record:
    """Compress a model by a row's recipe, measure the result, and return the numbers."""
    recipe = place / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "lever", "steps": rows()[row]}))
    began = time.perf_counter()
    done = whet.compress(
        texts.model,
        recipe,
        calibration=texts.calibration,
        set=[f"calibration.samples={samples}"],
        out=place / "out",
        seed=seed,
    )
    seconds = time.perf_counter() - began
    whole = {r.step: r for r in done.records if not r.site}
    judged = next(
        r
        for r in whet.measure(done.path, against=texts.model, data=texts.valid)
        if r.step == "measure" and not r.site
    )
    facts = {name: judged.facts[name] for name in KEPT}
    facts |= {name: f for name in SIZES if (f := whole["output"].facts.get(name))}
    facts["seconds"] = Quantity(seconds, "s", "compressing, wall time, the machine shared")
    facts["windows"] = Quantity(samples, "1", "calibration windows of 512 tokens")
    return Record("lever", row, facts, notes={"seed": str(seed), "data": Path(texts.valid).name})


def table() -> None:
    """Print the mean and standard deviation of every row that the file holds."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for line in RESULTS.read_text().splitlines():
        record = json.loads(line)
        found[record["site"], record["facts"]["windows"]["value"]].append(record["facts"])
    for (row, windows), facts in found.items():
        kl, ppl = ([one[name]["value"] for one in facts] for name in ("kl_mean", "ppl"))
        spread = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in (kl, ppl)]
        size = facts[0].get("bits_per_weight", {}).get("value", 16)
        print(
            f"{row:34} {windows:4.0f} windows, {len(kl)} seeds, {size:5.2f} bit"
            f"  KL {statistics.mean(kl):.4f} ± {spread[0]:.4f}"
            f"  ppl {statistics.mean(ppl):.2f} ± {spread[1]:.2f}"
        )


def main() -> None:
    """Measure the named rows, or print what was measured."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--table", action="store_true")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--samples", type=int, default=32)
    words.add_argument("--keep", type=Path)
    for name in ("model", "calibration", "valid"):
        words.add_argument(name, nargs="?")
    words.add_argument("rows", nargs="*")
    texts = words.parse_args()
    if texts.table:
        table()
        return
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for row in rows():
        for seed in texts.seeds if any(fnmatchcase(row, name) for name in texts.rows) else ():
            with tempfile.TemporaryDirectory() as passing:
                place = texts.keep / row.replace("/", "-") / str(seed) if texts.keep else passing
                Path(place).mkdir(parents=True, exist_ok=True)
                record = measured(row, seed, texts.samples, Path(place), texts)
            append_records(RESULTS, [record])
            print(f"{row}, seed {seed}: KL {record.facts['kl_mean'].value:.4f} nat", flush=True)


if __name__ == "__main__":
    main()
