"""AutoRound with its own defaults: signed-gradient tuning of rounding and clipping by block."""

import time

import torch
from auto_round import AutoRound
from handover import Job, hand_over, received
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

_BATCH = 8


def tuned(job: Job) -> tuple[PreTrainedModel, float]:
    """The model whose linears carry their scales and zero points, and the time it took [s]."""
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    tokens = job.tokens()
    started = time.perf_counter()
    rounder = AutoRound(
        model,
        tokenizer,
        scheme="W4A16",
        bits=job.bits,
        group_size=job.group,
        sym=job.options["symmetric"],
        iters=job.options["iterations"],
        dataset=list(tokens.split(_BATCH)),
        nsamples=job.samples,
        seqlen=job.length,
        batch_size=_BATCH,
        device_map="cpu",
    )
    model, _ = rounder.quantize()
    return model, time.perf_counter() - started


def dequantized(model: PreTrainedModel, bits: int, group: int) -> dict[str, torch.Tensor]:
    """Codes times scales in float32; the codes come from the tuned weights, as in its packing."""
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if getattr(module, "scale", None) is not None and hasattr(module, "weight"):
            rows = module.weight.detach().float().reshape(-1, group)
            scale = module.scale.to(torch.float16).float().reshape(-1, 1)
            zero = torch.as_tensor(module.zp).float().expand(module.scale.shape).reshape(-1, 1)
            codes = (rows / scale + zero).round().clamp(0, 2**bits - 1)
            values = (codes - zero) * scale
            if (values - rows).abs().max() > rows.abs().max() / 2**7:
                raise ValueError(f"{name}: the codes do not give back the tuned weights")
            found[f"{name}.weight"] = values.reshape(module.weight.shape)
    return found


def main() -> None:
    """Carry out the job named on the command line."""
    job = received()
    model, seconds = tuned(job)
    hand_over(job, dequantized(model, job.bits, job.group), seconds)


if __name__ == "__main__":
    main()
