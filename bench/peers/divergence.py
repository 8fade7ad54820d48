"""The common evaluator: how far a model folder is from the original one, in float32.

Both are loaded as plain ``transformers`` models; ``--import whet`` first lets that package
register its own folders. Printed: one JSON object.
"""

import argparse
import importlib
import json
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from windows import windows


def loaded(folder: Path) -> PreTrainedModel:
    """A folder as a float32 model that only answers."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logarithms(model: PreTrainedModel, window: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token at each place, ``[token, vocab]`` in float64."""
    return model(window[None], use_cache=False).logits[0].double().log_softmax(dim=-1)


def surprise(log_probability: torch.Tensor, window: torch.Tensor) -> float:
    """Mean negative log-likelihood of the tokens after the first [nat/token]."""
    return -float(log_probability[:-1].gather(1, window[1:, None]).mean())


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean over windows and its standard error."""
    column = torch.tensor(values, dtype=torch.float64)
    error = float(column.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(column.mean()), error


@torch.inference_mode()
def divergence(
    original: PreTrainedModel, candidate: PreTrainedModel, rows: torch.Tensor
) -> dict[str, float]:
    """KL(original || candidate) [nat], agreement, and perplexity of both.

    Agreement is the share of places whose most likely next token stays the same.
    """
    kl: list[float] = []
    same: list[float] = []
    before: list[float] = []
    after: list[float] = []
    for row in rows:
        p, q = logarithms(original, row), logarithms(candidate, row)
        kl.append(float((p.exp() * (p - q)).sum(dim=-1).mean()))
        same.append(float((p.argmax(dim=-1) == q.argmax(dim=-1)).double().mean()))
        before.append(surprise(p, row))
        after.append(surprise(q, row))
    mean, error = mean_and_error(kl)
    return {
        "kl_nat": mean,
        "kl_nat_standard_error": error,
        "top1": mean_and_error(same)[0],
        "ppl": math.exp(mean_and_error(after)[0]),
        "ppl_original": math.exp(mean_and_error(before)[0]),
    }


def main() -> None:
    """Print the figures of one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--original", type=Path, required=True, help="folder of the uncompressed model"
    )
    parser.add_argument("--candidate", type=Path, required=True, help="folder to judge")
    parser.add_argument(
        "--text", type=Path, required=True, help="text that no calibration has seen"
    )
    parser.add_argument(
        "--windows", type=int, default=120, help="windows, from the start of the text"
    )
    parser.add_argument("--length", type=int, default=512, help="tokens in a window")
    parser.add_argument("--import", dest="module", help="a module to import before loading")
    arguments = parser.parse_args()
    if arguments.module:
        importlib.import_module(arguments.module)
    rows = windows(arguments.original, arguments.text, arguments.length)[: arguments.windows]
    if len(rows) < arguments.windows:
        parser.error(f"{arguments.text}: found {len(rows)} windows, expected {arguments.windows}")
    print(json.dumps(divergence(loaded(arguments.original), loaded(arguments.candidate), rows)))


if __name__ == "__main__":
    main()
