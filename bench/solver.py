"""Processor seconds of second-order rounding, native beside its twin in torch.

    python bench/solver.py [FORMAT ...]

Shapes are those of a block of 576 channels; one thread each. Prints a row for each format and shape, and
appends all to `results/solver.jsonl`. Other work on the machine slows both down by some per cent.
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import torch

from whet.base.machine import processor
from whet.calibrate.statistics import Gram, Stats
from whet.formats.spec import parse
from whet.methods.quantize.gptq import Gptq
from whet.methods.solve import native

RESULTS = Path(__file__).parent / "results" / "solver.jsonl"
FORMATS = ("int4-g64", "int4-g64-affine", "nf4-g64", "fp4-g32", "codebook4-channel")
SHAPES = ((576, 576), (1536, 576), (576, 1536))  # outputs, inputs
TOKENS, REPEATS = 4096, 3


def posed(outputs: int, inputs: int) -> tuple[torch.Tensor, Stats]:
    """Return a weight, and statistics of correlated inputs."""
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(inputs, inputs, generator=draw) / inputs**0.5 + 0.5 * torch.eye(inputs)
    stats = Stats((Gram,), inputs)
    stats.add(torch.randn(TOKENS, inputs, generator=draw) @ mix)
    return torch.randn(outputs, inputs, generator=draw) / inputs**0.5, stats


def seconds(method: Gptq, weight: torch.Tensor, stats: Stats) -> float:
    """Return the least processor time of some runs [s]."""
    found: list[float] = []
    for _ in range(REPEATS):
        began = time.process_time()
        method.rewrite(weight, stats, "mlp.up", 0)
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    """Print the table, and append its rows."""
    torch.set_num_threads(1)
    head = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "processor": processor()[0]}
    print(f"{'format':20} {'out':>5} {'in':>5} {'torch [s]':>10} {'native [s]':>10}")
    for name in sys.argv[1:] or FORMATS:
        method = Gptq(format=parse(name), alpha=0.0, alpha_down=0.0, rho=0.0)
        for outputs, inputs in SHAPES:
            weight, stats = posed(outputs, inputs)
            fast = seconds(method, weight, stats)
            with patch.object(native, "missing", lambda: "not asked for"):
                slow = seconds(method, weight, stats)
            print(f"{name:20} {outputs:5} {inputs:5} {slow:10.3f} {fast:10.3f}", flush=True)
            row = {"format": name, "outputs": outputs, "inputs": inputs}
            row |= {"torch_seconds": round(slow, 4), "native_seconds": round(fast, 4)}
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(head | row) + "\n")


if __name__ == "__main__":
    main()
