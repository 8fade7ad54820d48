"""GGUF files for tests, written by the gguf package as llama.cpp's converter writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from numpy.typing import NDArray
from safetensors.torch import load_file

from whet.store.gguf.names import BLOCKS, ENDS

HALVES = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "Q4_1": (0, 2), "Q5_1": (0, 2),
}  # where blocks have numbers in half precision  # fmt: skip


def random_rows(kind: Any, rows: int, cols: int, seed: int = 0) -> NDArray[np.uint8]:
    """Rows of blocks with every bit at random, but for finite scales."""
    chance = np.random.default_rng(seed)
    blocks = chance.integers(0, 256, (rows * cols // kind.size, kind.nbytes), dtype=np.uint8)
    if kind.name == "MXFP4":
        blocks[:, 0] = chance.integers(100, 150, len(blocks))
    else:
        for place in HALVES.get(kind.name, (0,)):
            halves = chance.normal(size=(len(blocks), 1)).astype(np.float16)
            blocks[:, place : place + 2] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


def permuted(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Queries or keys as llama.cpp orders the channels of Llama."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


def name_of(architecture: str, name: str) -> str:
    """The name that llama.cpp has for a tensor of the original."""
    module, _, part = name.rpartition(".")
    ends = {theirs: ours for ours, theirs in ENDS.items()}
    if module in ends:
        return f"{ends[module]}.{part}"
    _, _, layer, local = module.split(".", 3)
    blocks = {theirs: ours for ours, theirs in BLOCKS[architecture].items()}
    return f"blk.{layer}.{blocks[local]}.{part}"


def converted(
    folder: Path, path: Path, kind: str = "F32", extra: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder of plain numbers as a GGUF file, its matrices in blocks of a kind."""
    config = json.loads((folder / "config.json").read_text())
    architecture = config["model_type"]
    writer = GGUFWriter(path, architecture)
    sizes = {
        "block_count": "num_hidden_layers", "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size", "context_length": "max_position_embeddings",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    }  # fmt: skip
    for key, name in sizes.items():
        if config.get(name) is not None:
            writer.add_uint32(f"{architecture}.{key}", config[name])
    theta = (config.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    writer.add_float32(f"{architecture}.rope.freq_base", theta)
    epsilon = f"{architecture}.attention.layer_norm_rms_epsilon"
    writer.add_float32(epsilon, config["rms_norm_eps"])
    for key, value in (extra or {}).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    if (folder / "tokenizer.json").exists():
        _tokenizer(writer, folder)
    for name, tensor in load_file(folder / "model.safetensors").items():
        _tensor(writer, config, name, tensor.float().numpy(), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensor(
    writer: GGUFWriter, config: Mapping[str, Any], name: str, value: NDArray[Any], kind: str
) -> None:
    architecture = config["model_type"]
    if architecture == "llama" and ".q_proj." in name:
        value = permuted(value, config["num_attention_heads"])
    if architecture == "llama" and ".k_proj." in name:
        value = permuted(value, config["num_key_value_heads"])
    if architecture == "gemma2" and name.endswith("norm.weight"):
        value = value + 1
    theirs = name_of(architecture, name)
    if value.ndim == 1 or kind == "F32":
        writer.add_tensor(theirs, np.ascontiguousarray(value, np.float32))
        return
    number = GGMLQuantizationType[kind]
    blocks = quants.quantize(np.ascontiguousarray(value, np.float32), number)
    writer.add_tensor(theirs, blocks, raw_dtype=number)


def _tokenizer(writer: GGUFWriter, folder: Path) -> None:
    """Write a tokenizer: of byte-level pairs, or of pieces with scores in the order of their ids."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    vocab = sorted(whole["model"]["vocab"].items(), key=lambda pair: pair[1])
    special = {t["content"] for t in whole["added_tokens"] if t["special"]}
    pieces = bool(whole["model"]["byte_fallback"])
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if token in special else 1 for token, _ in vocab])
    if pieces:
        writer.add_token_scores([-float(index) for _, index in vocab])
        writer.add_unk_token_id(0)
    else:
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges([" ".join(merge) for merge in whole["model"]["merges"]])
    ids = json.loads((folder / "config.json").read_text())
    writer.add_bos_token_id(ids["bos_token_id"])
    writer.add_eos_token_id(ids["eos_token_id"])
