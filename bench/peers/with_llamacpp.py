"""llama.cpp's mixed K- and IQ-quants with an importance matrix.

llama.cpp chooses the type of each tensor and quantizes it; the importance matrix, the mean squares
of what each linear reads, is taken from the original in torch. Rows of queries and keys stay in the
order of transformers: types code row by row.
"""

import ctypes
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import torch
from handover import Job, block_matrices, hand_over, received
from transformers import AutoModelForCausalLM

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_BATCH = 8


def translated(name: str) -> str:
    """The name of a block's linear in GGUF."""
    layer, module = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name).groups()
    return f"blk.{layer}.{_NAMES[module]}.weight"


@torch.no_grad()
def importance(job: Job) -> dict[str, np.ndarray]:
    """Mean squares of the inputs of every linear over the calibration windows."""
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    sums: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:

            def look(_: object, given: tuple[torch.Tensor], __: object, key: str = name) -> None:
                squares = given[0].double().square().sum((0, 1))
                sums[key] = sums.get(key, 0) + squares

            module.register_forward_hook(look)
    tokens = job.tokens()
    for batch in tokens.split(_BATCH):
        model(batch)
    return {f"{k}.weight": (v / tokens.numel()).float().numpy() for k, v in sums.items()}


def quantized(job: Job, squares: dict[str, np.ndarray], folder: Path) -> gguf.GGUFReader:
    """The model as llama.cpp writes it."""
    source, out = folder / "source.gguf", folder / "out.gguf"
    _write(job, source)
    entry = llama_cpp.llama_model_imatrix_data
    named = {translated(name).encode(): values for name, values in squares.items()}
    entries = [entry(name, _floats(values), values.size) for name, values in named.items()]
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{job.options['kind']}")
    settings.imatrix = (entry * (len(entries) + 1))(*entries)  # the last, of zeros, ends it
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), settings):
        raise RuntimeError(f"llama.cpp makes no {job.options['kind']} of this model")
    return gguf.GGUFReader(out)


def _floats(values: np.ndarray) -> Any:  # noqa: ANN401 (a pointer, whose type ctypes makes)
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _write(job: Job, path: Path) -> None:
    config = json.loads((job.model / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    shape = (config["vocab_size"], config["hidden_size"])
    writer.add_tensor("token_embd.weight", np.zeros(shape, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(shape[1:], np.float32))
    for name, weight in block_matrices(job.model).items():
        writer.add_tensor(translated(name), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Carry out the job named on the command line."""
    job = received()
    weights, squares = block_matrices(job.model), importance(job)
    found: dict[str, torch.Tensor] = {}
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        tensors = {one.name: one for one in quantized(job, squares, Path(folder)).tensors}
        seconds = time.perf_counter() - started
        for name, weight in weights.items():
            stored = tensors[translated(name)]
            value = gguf.quants.dequantize(stored.data, stored.tensor_type)
            found[name] = torch.from_numpy(value.reshape(weight.shape).copy())
            size += int(stored.n_bytes)
    count = sum(weight.numel() for weight in weights.values())
    hand_over(job, found, seconds, 8 * size / count)


if __name__ == "__main__":
    main()
