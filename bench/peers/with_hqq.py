"""HQQ with its own defaults: groups along a row, a search for the zero point, no calibration."""

import time

import torch
from handover import block_matrices, hand_over, received
from hqq.core.quantize import BaseQuantizeConfig, Quantizer


def round_trip(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """What is left of a matrix whose scales and zero points are stored in float16."""
    options = BaseQuantizeConfig(nbits=bits, group_size=group, axis=1)["weight_quant_params"]
    codes, meta = Quantizer.quantize(weight, device="cpu", compute_dtype=torch.float16, **options)
    for plane in ("scale", "zero"):
        meta[plane] = meta[plane].to(torch.float16).float()
    meta["compute_dtype"] = torch.float32
    return Quantizer.dequantize(codes, meta).reshape(weight.shape)


def main() -> None:
    """Carry out the job named on the command line."""
    job = received()
    weights = block_matrices(job.model)
    started = time.perf_counter()
    kept = {name: round_trip(weight, job.bits, job.group) for name, weight in weights.items()}
    hand_over(job, kept, time.perf_counter() - started)


if __name__ == "__main__":
    main()
