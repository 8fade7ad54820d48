"""Folders as other programs quantize them: textbook writers that keep what every code means.

Each writer takes a matrix (out, in), rounds it in the plainest way, and returns the stored tensors
by local name with the exact values, computed number by number from the published description.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.small import small_model
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.writer import write_shard

Written = tuple[dict[str, Tensor], Tensor]
FP4_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Case:
    """A writer, its `quantization_config`, and whether whet runs its codes as they are."""

    write: Callable[[Tensor], Written]
    config: Mapping[str, Any]
    runs: bool = True
    words: str = ""
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])


def grid(
    weight: Tensor, bits: int, group: int, order: Tensor, *, sym: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return codes (out, in), zeros and f16 scales (groups, out), and the values."""
    out, inputs = weight.shape
    groups = int(order.max()) + 1
    last = 2**bits - 1
    codes = torch.zeros(out, inputs, dtype=torch.int64)
    zeros, scales = torch.zeros(groups, out, dtype=torch.int64), torch.zeros(groups, out)
    for g in range(groups):
        part = weight[:, order == g]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        scale = ((high - low) / last if not sym else part.abs().amax(1) * 2 / last).clamp(min=1e-6)
        scale = scale.half().float()
        zero = (
            (-low / scale).round().clamp(1, last)
            if not sym
            else torch.full_like(low, 2 ** (bits - 1))
        )
        codes[:, order == g] = (part / scale[:, None] + zero[:, None]).round().clamp(0, last).long()
        zeros[g], scales[g] = zero.long(), scale
    values = (codes - zeros[order].T) * scales[order].T
    return codes, zeros, scales, values


def stream(codes: Tensor, bits: int) -> Tensor:
    """Return rows of codes as int32 words: code i at bit i * bits of one long number."""
    rows = []
    for row in codes.tolist():
        number = sum(code << (i * bits) for i, code in enumerate(row))
        count = -(-len(row) * bits // 32)
        rows.append([(number >> (32 * i)) & 0xFFFFFFFF for i in range(count)])
    return torch.tensor(rows, dtype=torch.int64).to(torch.int32)


def gptq(
    bits: int, group: int = 64, *, sym: bool = False, v2: bool = False, act: bool = False
) -> Case:
    """Return GPTQ of version 1 or 2, with or without act-order."""

    def write(weight: Tensor) -> Written:
        inputs = weight.shape[1]
        order = torch.arange(inputs) // (group if group > 0 else inputs)
        if act:
            order = order[torch.randperm(inputs, generator=torch.Generator().manual_seed(1))]
        codes, zeros, scales, values = grid(weight, bits, group, order, sym=sym)
        stored = zeros if v2 else zeros - 1
        found = {
            "qweight": stream(codes, bits).T.contiguous(),
            "qzeros": stream(stored, bits),
            "scales": scales.half(),
            "g_idx": order.to(torch.int32),
        }
        return found, values

    config = {
        "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act, "sym": sym,
        "checkpoint_format": "gptq_v2" if v2 else "gptq",
    }  # fmt: skip
    name = f"GPTQ int{bits}-" + (f"g{group}" if group > 0 else "channel")
    return Case(write, config, runs=not act, words=name)


def awq() -> Case:
    """Return AWQ in the layout gemm."""

    def pack(codes: Tensor) -> Tensor:
        rows = []
        for row in codes.tolist():
            words = [row[i : i + 8] for i in range(0, len(row), 8)]
            rows.append([sum(w[v] << (4 * p) for p, v in enumerate(AWQ_ORDER)) for w in words])
        return torch.tensor(rows, dtype=torch.int64).to(torch.int32)

    def write(weight: Tensor) -> Written:
        order = torch.arange(weight.shape[1]) // 128
        codes, zeros, scales, values = grid(weight, 4, 128, order, sym=False)
        found = {"qweight": pack(codes.T), "qzeros": pack(zeros), "scales": scales.half()}
        return found, values

    config = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    return Case(write, config | {"version": "gemm"}, words="AWQ int4-g128")


def fp8(kind: str) -> Case:
    """Return fp8 with a scale for the matrix, each row, or blocks of 128 × 128."""

    def write(weight: Tensor) -> Written:
        rows, cols = weight.shape
        block = {"tensor": (rows, cols), "channel": (1, cols), "block": (128, 128)}[kind]
        many = (-(-rows // block[0]), -(-cols // block[1]))
        scale, values = torch.zeros(many), torch.zeros(rows, cols)
        codes = torch.zeros(rows, cols, dtype=torch.float8_e4m3fn)
        for i in range(many[0]):
            for j in range(many[1]):
                at = (
                    slice(i * block[0], (i + 1) * block[0]),
                    slice(j * block[1], (j + 1) * block[1]),
                )
                scale[i, j] = weight[at].abs().max() / 448
                codes[at] = (weight[at] / scale[i, j]).to(torch.float8_e4m3fn)
                values[at] = codes[at].float() * scale[i, j]
        if kind == "block":
            return {"weight": codes, "weight_scale_inv": scale}, values
        extra = {"input_scale": torch.tensor(0.5)} if kind == "tensor" else {}
        return {
            "weight": codes,
            "weight_scale": scale.squeeze() if kind == "tensor" else scale,
        } | extra, values

    config: dict[str, Any] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    config |= {"weight_block_size": [128, 128]} if kind == "block" else {}
    if kind == "channel":
        config = {"quant_method": "fbgemm_fp8"}
    return Case(write, config, words="f")


def four_bit(kind: str, *, nested: bool) -> Case:
    """Return bitsandbytes nf4 or fp4, its scales quantized again or not."""
    fp4 = [x / 12 for x in (0, 0.0625, 8, 12, 4, 6, 2, 3)]
    table = torch.tensor(NF4 if kind == "nf4" else [*fp4, *(-x for x in fp4)])
    dynamic = torch.linspace(-1, 1, 256)

    def write(weight: Tensor) -> Written:
        flat = weight.reshape(-1, 64)
        absmax = flat.abs().amax(1)
        state: dict[str, Any] = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16"}
        state |= {"shape": list(weight.shape)}
        parts: dict[str, Tensor] = {"weight.absmax": absmax}
        if nested:
            offset = float(absmax.mean())
            outer = torch.stack([(x - offset).abs().max() for x in absmax.split(256)])
            ratio = (absmax - offset) / outer.repeat_interleave(256)[: len(absmax)]
            index = (ratio[:, None] - dynamic).abs().argmin(1)
            absmax = dynamic[index] * outer.repeat_interleave(256)[: len(absmax)] + offset
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            parts = {
                "weight.absmax": index.to(torch.uint8),
                "weight.nested_absmax": outer,
                "weight.nested_quant_map": dynamic,
            }
        codes = (flat[..., None] / absmax[:, None, None] - table).abs().argmin(-1)
        values = table[codes] * absmax[:, None]
        pairs = codes.reshape(-1, 2)
        text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        parts |= {
            "weight": (pairs[:, 0] * 16 + pairs[:, 1]).to(torch.uint8)[:, None],
            "weight.quant_map": table,
            f"weight.quant_state.bitsandbytes__{kind}": text,
        }
        return parts, values.reshape(weight.shape)

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return Case(write, config, runs=kind == "nf4", words=f"bitsandbytes {kind}")


def llm_int8() -> Case:
    """Return bitsandbytes LLM.int8."""

    def write(weight: Tensor) -> Written:
        most = weight.abs().amax(1)
        codes = (weight * 127 / most[:, None]).round()
        stored = {"weight": codes.to(torch.int8), "SCB": most}
        stored |= {"weight_format": torch.tensor(0, dtype=torch.uint8)}
        return stored, codes * (most / 127)[:, None]

    return Case(
        write, {"quant_method": "bitsandbytes", "load_in_8bit": True}, words="bitsandbytes LLM.int8"
    )


CASES: Mapping[str, Case] = {
    "gptq4": gptq(4, 128),
    "gptq4-sym": gptq(4, sym=True),
    "gptq4-v2": gptq(4, v2=True),
    "gptq4-act": gptq(4, act=True),
    "gptq2": gptq(2),
    "gptq3": gptq(3, sym=True),
    "gptq8": gptq(8, -1),
    "awq": awq(),
    "fp8-block": fp8("block"),
    "fp8-tensor": fp8("tensor"),
    "fp8-channel": fp8("channel"),
    "nf4": four_bit("nf4", nested=False),
    "nf4-nested": four_bit("nf4", nested=True),
    "fp4": four_bit("fp4", nested=False),
    "llm-int8": llm_int8(),
}


def plain(path: Path) -> Path:
    """Write one block of the demo model, as plain numbers."""
    return small_model(path, 1)


def quantized(source: Path, into: Path, case: Case) -> dict[str, Tensor]:
    """Write a folder whose blocks a case has quantized; return the exact values by tensor."""
    shutil.copytree(source, into)
    checkpoint = Checkpoint(Folder(source))
    tensors: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for name in checkpoint.names():
        tensor = checkpoint.tensor(name)
        if not name.endswith("proj.weight"):
            tensors[name] = tensor.clone()
            continue
        parts, values[name] = case.write(tensor.float())
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.{part}": x.contiguous() for part, x in parts.items()}
    write_shard(into / "model.safetensors", tensors)
    config = json.loads((into / "config.json").read_text())
    (into / "config.json").write_text(json.dumps(config | {"quantization_config": case.config}))
    return values
