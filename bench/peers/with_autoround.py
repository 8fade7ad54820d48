"""AutoRound with its own defaults: signed-gradient tuning of rounding and clipping by block.

With `average` bits a weight its AutoScheme chooses the width of every linear.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

import torch
from auto_round import AutoRound, AutoScheme
from auto_round.schemes import QuantizationScheme
from handover import Job, hand_over, received
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

_BATCH = 8
_WIDTHS = (2, 3, 4, 8)  # that AutoScheme chooses from


def tuned(job: Job) -> tuple[PreTrainedModel, float]:
    """The model whose linears carry their scales and zero points, and the time it took [s]."""
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    tokens = list(job.tokens().split(_BATCH))
    started = time.perf_counter()
    rounder = AutoRound(
        model,
        tokenizer,
        **_scheme(job),
        iters=job.options["iterations"],
        dataset=_as_text(job, tokenizer) if "average" in job.options else tokens,
        nsamples=job.samples,
        seqlen=job.length,
        batch_size=_BATCH,
        device_map="cpu",
    )
    model, _ = rounder.quantize()
    return model, time.perf_counter() - started


def _scheme(job: Job) -> dict[str, Any]:
    symmetric = job.options["symmetric"]
    if "average" not in job.options:
        return {"scheme": "W4A16", "bits": job.bits, "group_size": job.group, "sym": symmetric}
    widths = [
        QuantizationScheme(bits=bits, group_size=job.group, sym=symmetric) for bits in _WIDTHS
    ]
    return {"scheme": AutoScheme(avg_bits=job.options["average"], options=widths)}


def _as_text(job: Job, tokenizer: PreTrainedTokenizerBase) -> str:
    """Write the calibration text in pieces a little longer than a window; AutoScheme reads files."""
    tokens = tokenizer(job.calibration.read_text(encoding="utf-8"), add_special_tokens=False)
    ids, step = tokens["input_ids"], job.length * 5 // 4
    pieces = [ids[at : at + step] for at in range(0, len(ids) - step, step)]
    chosen = [pieces[k * (len(pieces) - 1) // job.samples] for k in range(job.samples)]
    job.out.mkdir(parents=True, exist_ok=True)
    path = job.out / "calibration.jsonl"
    lines = (json.dumps({"text": tokenizer.decode(piece)}) for piece in chosen)
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def dequantized(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Codes times scales in float32; the codes come from the tuned weights, as in its packing."""
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if getattr(module, "scale", None) is not None and hasattr(module, "weight"):
            bits, group = module.bits, module.group_size
            rows = module.weight.detach().float().reshape(-1, group)
            scale = module.scale.to(torch.float16).float().reshape(-1, 1)
            zero = torch.as_tensor(module.zp).float().expand(module.scale.shape).reshape(-1, 1)
            codes = (rows / scale + zero).round().clamp(0, 2**bits - 1)
            values = (codes - zero) * scale
            if (values - rows).abs().max() > rows.abs().max() / 2**7:
                raise ValueError(f"{name}: the codes do not give back the tuned weights")
            found[f"{name}.weight"] = values.reshape(module.weight.shape)
    return found


def bits_per_weight(model: PreTrainedModel, names: Iterable[str]) -> float:
    """Codes, scales and zero points of some linears [bit]; a zero point is as wide as a code."""
    bits = weights = 0.0
    for name in names:
        module = model.get_submodule(name.removesuffix(".weight"))
        zero = 0 if module.sym else module.bits
        weights += module.weight.numel()
        bits += module.weight.numel() * (module.bits + (16 + zero) / module.group_size)
    return bits / weights


def main() -> None:
    """Carry out the job named on the command line."""
    job = received()
    model, seconds = tuned(job)
    weights = dequantized(model)
    hand_over(job, weights, seconds, bits_per_weight(model, weights))


if __name__ == "__main__":
    main()
