"""llm-compressor: GPTQ and rounding to nearest (RTN) by its defaults, loaded as stored."""

import time
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, fake_quantize
from handover import hand_over, received
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, PreTrainedModel


def scheme(bits: int, group: int, *, symmetric: bool) -> QuantizationScheme:
    """Integer weights in groups of a row, on every linear; activations untouched."""
    weights = QuantizationArgs(
        num_bits=bits, type="int", strategy="group", group_size=group, symmetric=symmetric
    )
    return QuantizationScheme(targets=["Linear"], weights=weights)


def batches(tokens: torch.Tensor, size: int) -> DataLoader[dict[str, torch.Tensor]]:
    """The windows as the batches that llm-compressor feeds to the model, in order."""
    rows: list[dict[str, torch.Tensor]] = [
        {"input_ids": row, "attention_mask": torch.ones_like(row)} for row in tokens
    ]
    return DataLoader(rows, batch_size=size)  # pyright: ignore[reportArgumentType]


def compress(
    model: PreTrainedModel,
    method: str,
    group: QuantizationScheme,
    tokens: torch.Tensor,
    batch: int = 8,
) -> None:
    """Quantize a model in place; RTN looks at no data."""
    arguments: dict[str, Any] = {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    if method == "gptq":
        data = batches(tokens, batch)
        oneshot(
            model=model,
            recipe=GPTQModifier(**arguments),
            dataset=data,
            num_calibration_samples=len(tokens),
        )
    else:
        oneshot(model=model, recipe=QuantizationModifier(**arguments))


def dequantized(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Codes times scales in float32, not rounded to the model's type once more."""
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        args = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if args is not None:
            zero = getattr(module, "weight_zero_point", None)
            found[f"{name}.weight"] = fake_quantize(
                module.weight.detach().float(), module.weight_scale.float(), zero, args
            )
    return found


def main() -> None:
    """Carry out the job named on the command line."""
    job = received()
    tokens = job.tokens()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=job.options.get("dtype", "auto"))
    group = scheme(job.bits, job.group, symmetric=job.options["symmetric"])
    started = time.perf_counter()
    compress(model, job.options["method"], group, tokens)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        hand_over(job, dequantized(model), seconds)


if __name__ == "__main__":
    main()
