"""What the engine adds to what a folder says: native against reference, on the same weights.

    python bench/real_model/engine_kl.py TEXT FOLDER... [--windows 4] [--out FILE.jsonl]

Both read the same tokens with the same file; the reference computes in float32. A line has the mean and
the 99th percentile of the KL divergence and the top-1 agreement, for inputs of 16 bits, which is how
whet runs unless told otherwise, and with the KV cache in float32, which shows what the cache adds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import whet
from whet.runtime.engine import Engine

LENGTH = 256  # tokens in a window
Logs = NDArray[np.float64]


def log_probabilities(engine: Engine, ids: NDArray[np.int64]) -> Logs:
    """Return log p of the next token, [token vocab]."""
    executor = engine.executor
    logits = executor.step(ids, executor.new_cache(), len(ids)).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def compared(known: list[Logs], found: list[Logs]) -> dict[str, float]:
    """Return how far predictions are from those of the reference."""
    pairs = list(zip(known, found, strict=True))
    lost = np.concatenate([(np.exp(p) * (p - q)).sum(-1) for p, q in pairs])
    same = np.concatenate([p.argmax(-1) == q.argmax(-1) for p, q in pairs])
    return {
        "mean_kl": float(lost.mean()),
        "p99_kl": float(np.quantile(lost, 0.99)),
        "top1": float(same.mean()),
    }


def row(path: Path, text: Path, count: int) -> dict[str, object]:
    """Return the figures of one folder or file."""
    exact = whet.load(path, executor="reference")
    words = text.read_text(encoding="utf-8")[: 8 * LENGTH * count]
    ids = np.asarray(exact.encode(words), np.int64)[: LENGTH * count].reshape(-1, LENGTH)
    known = [log_probabilities(exact, window) for window in ids]
    found: dict[str, object] = {"folder": path.name, "text": text.name, "tokens": int(ids.size)}
    for cache in ("bf16", "f32"):
        engine = whet.load(path, kernels="require", cache=cache)
        logs = [log_probabilities(engine, window) for window in ids]
        found[f"{cache} cache"] = compared(known, logs)
    return found


def main() -> None:
    """Compare every folder that is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    for folder in given.folders:
        line = json.dumps(row(folder, given.text, given.windows))
        print(line, flush=True)
        if given.out is not None:
            with given.out.open("a", encoding="utf-8") as out:
                print(line, file=out)


if __name__ == "__main__":
    main()
