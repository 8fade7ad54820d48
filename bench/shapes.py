"""Shapes that a search finds beside shrinking alike, at the same size; to `results/search.jsonl`.

    python bench/shapes.py MODEL CALIBRATION VALIDATION WORK [SHARE…]

For each share of the blocks' weights that is to go: the size of the model that is shrunk alike (one
share of the layers and one of each feed-forward width, by importance), then a search within that size,
then the model shrunk alike, trained on as many tokens as what the search gave has seen. All numbers of
the blocks are int8-g64 and the embedding stays as it is, so only shapes differ. About 20 minutes a
share on two cores.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

import whet
from whet.base.quantity import Quantity
from whet.base.record import Record, append_records

RESULTS = Path(__file__).parent / "results" / "search.jsonl"
LEVEL, MULTIPLE, RATE = "int8-g64", 16, 0.0003
KEPT = ("kl_mean", "top1", "ppl", "ppl_original")


def alike(model: Path, share: float) -> list[dict[str, Any]]:
    """Return steps that take half of a share from the depth, and the rest from every width."""
    config = json.loads((model / "config.json").read_text())
    layers, ffn, hidden = (
        config[name] for name in ("num_hidden_layers", "intermediate_size", "hidden_size")
    )
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    attention = 2 * head * hidden * (config["num_attention_heads"] + config["num_key_value_heads"])
    kept = max(1, round(layers * (1 - share / 2)))
    whole = 3 * hidden * ffn + attention
    width = ((1 - share) * layers / kept * whole - attention) / (3 * hidden)
    narrow = max(MULTIPLE, round(width / MULTIPLE) * MULTIPLE)
    thinner = {"use": "ffn", "share": 1 - narrow / ffn, "multiple": MULTIPLE}
    return [{"use": "depth", "keep": kept}, thinner]


def shrunk(asked: argparse.Namespace, share: float, tokens: int) -> tuple[Record, int]:
    """Shrink alike, train, round; return the quality, and the size of the weights [byte]."""
    steps = alike(asked.model, share)
    steps += [{"use": "distill", "tokens": tokens, "lr": RATE}] if tokens else []
    steps += [{"use": "gptq", "format": LEVEL, "where": ["layers.*"]}]
    recipe = asked.work / f"alike-{share}-{tokens}.yaml"
    source = {"source": str(asked.calibration)}
    recipe.write_text(yaml.safe_dump({"name": recipe.stem, "steps": steps, "calibration": source}))
    made = whet.compress(asked.model, recipe, out=asked.work / recipe.stem, overwrite=True)
    quality = whet.measure(made.path, against=asked.model, data=str(asked.validation))[0].facts
    size = sum(path.stat().st_size for path in made.path.glob("*.safetensors"))
    facts = {name: quality[name] for name in KEPT}
    facts["bytes"] = Quantity(float(size), "byte", "weight files on disk")
    facts["tokens"] = Quantity(float(tokens), "token", "of distillation, at most")
    notes = {"steps": "; ".join(f"{step['use']} {_settings(step)}" for step in steps)}
    return Record("shrunk alike", str(share), facts, notes=notes), size


def _settings(step: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in step.items() if name != "use")


def searched(asked: argparse.Namespace, share: float, size: int) -> tuple[Record, int]:
    """Search within a size; return what was measured, and the tokens that the result was trained on."""
    found = whet.search(
        asked.model,
        max_size=str(size),
        levels=[LEVEL],
        skip=["embed"],
        time=asked.time,
        calibration=str(asked.calibration),
        data=str(asked.validation),
        sweep=asked.work / "sweep",
        out=asked.work / f"found-{share}",
        overwrite=True,
    )
    record = next(one for one in found.records if one.step == "search")
    recipe = yaml.safe_load((found.path / "recipe.yaml").read_text())
    tokens = sum(int(step.get("tokens", 0)) for step in recipe["steps"])
    return Record("shape", str(share), record.facts, notes=record.notes), tokens


def main() -> None:
    """Compare at the named shares, or at a quarter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("model", "calibration", "validation", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("shares", nargs="*", type=float, default=[0.25])
    parser.add_argument("--time", default="10m", help="of each search")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for share in asked.shares:
        untrained, size = shrunk(asked, share, 0)
        found, tokens = searched(asked, share, size)
        trained, _ = shrunk(asked, share, tokens) if tokens else (untrained, size)
        append_records(RESULTS, [untrained, found, trained])
        told = [one.facts["kl_mean"].value for one in (untrained, trained)]
        print(f"{share}: KL alike {told[0]:.4f}, trained on {tokens:,} tokens {told[1]:.4f}; "
              f"found {found.facts['kl_measured'].value:.4f} ({found.notes})")  # fmt: skip


if __name__ == "__main__":
    main()
