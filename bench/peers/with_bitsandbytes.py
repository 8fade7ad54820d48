"""bitsandbytes: 4-bit codebooks with one float32 maximum a block, no calibration."""

import time

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from handover import block_matrices, hand_over, received


def round_trip(weight: torch.Tensor, block: int, kind: str) -> torch.Tensor:
    """What is left of a matrix after being stored in four bits."""
    codes, state = quantize_4bit(
        weight, blocksize=block, quant_type=kind, compress_statistics=False
    )
    return dequantize_4bit(codes, state)


def main() -> None:
    """Carry out the job named on the command line."""
    job = received()
    weights = block_matrices(job.model)
    started = time.perf_counter()
    kept = {
        name: round_trip(weight, job.group, job.options["kind"]) for name, weight in weights.items()
    }
    hand_over(job, kept, time.perf_counter() - started)


if __name__ == "__main__":
    main()
