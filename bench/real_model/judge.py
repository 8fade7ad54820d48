"""The common evaluator of whole files: KL divergence, top-1 agreement and perplexity in float32.

    python judge.py ORIGINAL TEXT WINDOWS CANDIDATE…      # in an environment with whet; one JSON line each
    python judge.py --importance ORIGINAL TEXT WINDOWS FILE.npz

A candidate is a GGUF file, which transformers decodes, or a folder, which transformers loads after
`import whet`. So no kernel of any engine takes part, and embedding and head count as they are stored.
`--importance` writes the mean squares of what each linear reads, which llama.cpp calls an imatrix.
"""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

LENGTH = 512  # tokens in a window


def windows(folder: Path, text: Path, count: int) -> torch.Tensor:
    """Return `count` windows at even distances in a text, without special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False).input_ids
    whole = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).reshape(-1, LENGTH)
    if len(whole) < count:
        raise ValueError(f"{text}: found {len(whole)} windows, expected at least {count}")
    return whole[[k * len(whole) // count for k in range(count)]]


def loaded(path: Path) -> PreTrainedModel:
    """Return a model in float32."""
    if path.suffix == ".gguf":
        found = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    else:
        found = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return found.eval()


def log_probabilities(model: PreTrainedModel, window: torch.Tensor) -> torch.Tensor:
    """Return log p of the next token, [token vocab]."""
    return model(window[None], use_cache=False).logits[0].log_softmax(dim=-1)


def judged(p: torch.Tensor, q: torch.Tensor, window: torch.Tensor) -> dict[str, float]:
    """Return the figures of one window."""
    lost = (p.exp() * (p - q)).sum(dim=-1).double()
    targets = window[1:, None]
    return {
        "kl": float(lost.mean()),
        "top1": float((p.argmax(-1) == q.argmax(-1)).double().mean()),
        "surprise": -float(q[:-1].gather(1, targets).double().mean()),
        "surprise_original": -float(p[:-1].gather(1, targets).double().mean()),
    }


def figures(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return means over windows, and the standard error of the KL divergence."""
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    error = float(np.std([row["kl"] for row in rows], ddof=1)) / math.sqrt(len(rows))
    return {
        "kl_nat": mean["kl"],
        "kl_nat_standard_error": error,
        "top1": mean["top1"],
        "ppl": math.exp(mean["surprise"]),
        "ppl_original": math.exp(mean["surprise_original"]),
        "windows": len(rows),
    }


@torch.inference_mode()
def judge(original: Path, text: Path, count: int, candidates: list[Path]) -> Iterator[str]:
    """Yield a JSON line for each candidate; the original is run once a window."""
    rows = windows(original, text, count)
    reference = loaded(original)
    models = [loaded(path) for path in candidates]
    found: list[list[dict[str, float]]] = [[] for _ in candidates]
    for window in rows:
        p = log_probabilities(reference, window)
        for number, model in enumerate(models):
            found[number].append(judged(p, log_probabilities(model, window), window))
    for path, mine in zip(candidates, found, strict=True):
        yield json.dumps({"candidate": str(path), "text": text.name} | figures(mine))


@torch.inference_mode()
def importance(original: Path, text: Path, count: int) -> dict[str, np.ndarray]:
    """Return the mean squares of what every linear reads, by module."""
    model = loaded(original)
    sums: dict[str, torch.Tensor] = {}

    def watched(name: str, module: torch.nn.Module) -> None:
        def look(_: object, given: tuple[torch.Tensor], __: object) -> None:
            sums[name] = sums.get(name, 0) + given[0].double().square().sum((0, 1))

        module.register_forward_hook(look)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            watched(name, module)
    rows = windows(original, text, count)
    for window in rows:
        model(window[None], use_cache=False)
    return {name: (total / rows.numel()).float().numpy() for name, total in sums.items()}


def main(words: list[str]) -> None:
    """Print the figures of each candidate, or write the importance."""
    if words[0] == "--importance":
        original, text, count, out = words[1:]
        np.savez(out, **importance(Path(original), Path(text), int(count)))
        return
    importlib.import_module("whet")
    original, text, count, *candidates = words
    for line in judge(Path(original), Path(text), int(count), [Path(one) for one in candidates]):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
