"""How near predicted speed and memory come to measured ones: models in several formats.

Folders of the demo model, rounded to nearest, and of the 1.1 G shape with random codes are made where
they are missing. The rest of each model is timed in one folder, linears in the table of this machine
(measured anew); then every folder is measured, in turns. Beside `whet.measure.speed`'s medians of
whole runs stands the lower quartile of single tokens, which other work on the machine disturbs less.
A line for each is appended to the results::

    python bench/predict_speed.py WORK --make [--shape]      # make folders and layouts only
    python bench/predict_speed.py WORK [--shape] [--runs 9]

`WHET_THREADS` says how many threads compute.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from whet.runtime.engine import Engine

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "predict_speed.jsonl"
REST_OF = "int4"
PROMPT, FIRST, NEW = 64, 256, 64  # [token]
DEMO: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "int8": {"int8-channel": ("blocks", "embed")},
    "int4": {"int4-g64": ("blocks", "embed")},
    "int3": {"int3-g64": ("blocks", "embed")},
    "int2": {"int2-g64": ("blocks", "embed")},
    "nf4": {"nf4-g64": ("blocks", "embed")},
    "int4, head int8": {"int4-g64": ("blocks",), "int8-channel": ("embed",)},
    "three widths": {
        "int3-g64": ("attn.*",),
        "int4-g64": ("mlp.gate", "mlp.up"),
        "int8-channel": ("mlp.down", "embed"),
    },
    "by depth": {
        "int8-g64": ("layers.[01].*", "embed"),
        "int4-g64": ("layers.[2345].*",),
        "nf4-g64": ("layers.[67].*",),
    },
    "values wider": {
        "int8-g64": ("attn.v", "attn.o", "embed"),
        "int4-g64": ("attn.[qk]", "mlp.*"),
    },
}
SHAPES = {
    "int4": ("int4-g32", "int6-g32"),
    "int8": ("int8-channel", "int8-channel"),
    "int3": ("int3-g64", "int6-g32"),
}  # format of the blocks, and of the head


def demo_folders(work: Path) -> dict[str, Path]:
    """Return the demo model in each of its formats, the plain one first."""
    found = {"bf16": Path("demo")}
    for name, chosen in DEMO.items():
        out = work / f"demo-{name.replace(' ', '-').replace(',', '')}"
        if not (out / "config.json").is_file():
            steps = [{"use": "rtn", "format": f, "where": list(w)} for f, w in chosen.items()]
            recipe = work / "recipe.yaml"
            recipe.write_text(yaml.safe_dump({"name": "bench", "steps": steps}))
            words = ["compress", "demo", "--recipe", recipe, "-o", out, "--offline"]
            subprocess.run([sys.executable, "-m", "whet", *map(str, words)], check=True)
        found[name] = out
    return found


def shape_folders(work: Path, layers: int) -> dict[str, Path]:
    """Return the 1.1 G shape in each of its formats."""
    found: dict[str, Path] = {}
    for name, (format_, head) in SHAPES.items():
        out = work / f"shape-{layers}-{name}"
        if not (out / "config.json").is_file():
            words = [out, "--format", format_, "--head", head, "--layers", layers]
            subprocess.run([sys.executable, HERE / "coded.py", *map(str, words)], check=True)
        found[name] = out
    return found


def measured(model: str, folders: Mapping[str, Path], runs: int) -> list[dict[str, object]]:
    """Predict all, then measure all in turns."""
    from whet.measure.speed import speed
    from whet.runtime.engine import load
    from whet.search.latency import latency
    from whet.search.predict import calibrated, formats_of
    from whet.store.contents import Contents
    from whet.store.folder import Folder

    engines = {name: load(str(path), "native") for name, path in folders.items()}
    source, threads = REST_OF, engines[REST_OF].executor.threads
    sizes = {
        name: sum(layout.nbytes for layout in engine.executor.program.weights.layouts.values())
        for name, engine in engines.items()
    }
    before = os.getloadavg()[0]
    found = calibrated(engines[source], latency(sizes[source], threads=threads))
    rows: list[dict[str, object]] = []
    for name, engine in engines.items():
        table = latency(sizes[name], threads=threads)
        mine, formats = replace(found, cost=table), formats_of(Contents(Folder(engine.folder)))
        rows.append({
            "model": model, "formats": name, "rest_of": source, "bytes": sizes[name],
            "threads": threads,
            "predicted_decode": 1 / mine.decode(formats, PROMPT + NEW // 2),
            "predicted_ttft": mine.first(formats, FIRST),
            "predicted_memory": mine.memory(formats, 80),
            "products_timed": table.measured,
        })  # fmt: skip
    records = speed(list(engines.values()), prompt=PROMPT, others=(FIRST,), new=NEW, runs=runs)
    for row, record in zip(rows, (one for one in records if one.step == "speed"), strict=True):
        facts = record.facts
        row["decode"], row["ttft"] = facts["decode"].value, facts[f"ttft_{FIRST}"].value
        row["decode_low"], row["decode_high"] = (
            facts[f"decode_{end}"].value for end in ("low", "high")
        )
        row["decode_undisturbed"] = undisturbed(engines[str(row["formats"])])
        row["memory"], row["bandwidth"] = facts["peak_rss"].value, facts["memory_read"].value
        row["load_before"], row["load_after"] = round(before, 1), round(os.getloadavg()[0], 1)
        row["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    return rows


def undisturbed(engine: "Engine") -> float:
    """The lower quartile of the times of single tokens, as a rate [token/s]."""
    spent: list[float] = []
    for _ in range(3):
        tokens = engine.generate(list(range(PROMPT)), max_tokens=NEW, stop_ids=())
        next(tokens)
        for _ in range(NEW - 1):
            began = perf_counter()
            next(tokens)
            spent.append(perf_counter() - began)
    return 1 / sorted(spent)[len(spent) // 4]


def line(row: Mapping[str, object]) -> str:
    """A prediction and what was measured, in words."""
    said: list[str] = []
    for name, unit, factor in (
        ("decode", "token/s", 1.0),
        ("ttft", "ms", 1e3),
        ("memory", "MB", 1e-6),
    ):
        wanted, got = (float(str(row[f"{lead}{name}"])) for lead in ("predicted_", ""))
        said.append(
            f"{name} {wanted * factor:8.1f} / {got * factor:8.1f} {unit} {wanted / got - 1:+6.1%}"
        )
    wanted, got = (float(str(row[n])) for n in ("predicted_decode", "decode_undisturbed"))
    said.append(f"undisturbed decode {got:8.1f} {wanted / got - 1:+6.1%}")
    return f"{row['model']:6} {row['formats']:16} {row['threads']} threads: " + "  ".join(said)


def main() -> None:
    """Make folders, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for models, layouts and the table")
    parser.add_argument("--shape", action="store_true", help="the 1.1 G shape, not the demo model")
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--make", action="store_true", help="make folders and layouts only")
    parser.add_argument("--runs", type=int, default=9)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    os.environ["WHET_CACHE"] = str(asked.work / "cache")
    folders = shape_folders(asked.work, asked.layers) if asked.shape else demo_folders(asked.work)
    if asked.make:
        from whet.runtime.engine import load

        for path in folders.values():
            load(str(path), "native")
        return
    shutil.rmtree(asked.work / "cache" / "latency", ignore_errors=True)
    model = f"1.1 G ×{asked.layers}/22" if asked.shape else "demo"
    for row in measured(model, folders, asked.runs):
        print(line(row), flush=True)
        with RESULTS.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
