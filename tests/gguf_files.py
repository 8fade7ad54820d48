"""GGUF files for tests, written by the gguf package as llama.cpp's converter writes them."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from numpy.typing import NDArray
from safetensors.torch import load_file

HALVES = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "Q4_1": (0, 2), "Q5_1": (0, 2), "TQ1_0": (52,), "TQ2_0": (64,), "IQ1_M": (),
}  # where blocks have numbers in half precision  # fmt: skip
ARCHITECTURES = {
    "mistral": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3",
    "gpt_neox": "gptneox", "olmo3": "olmo2",
}  # where llama.cpp has another name than transformers  # fmt: skip
SIZES = {
    "block_count": ("num_hidden_layers", "n_layer"),
    "embedding_length": ("hidden_size", "n_embd"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "context_length": ("max_position_embeddings", "n_positions"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "expert_count": ("num_local_experts", "num_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}
REALS = {
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}
Config = Mapping[str, Any]
Numbers = NDArray[np.float32]


def random_rows(kind: Any, rows: int, cols: int, seed: int = 0) -> NDArray[np.uint8]:
    """Rows of blocks with every bit at random, but for finite scales."""
    chance = np.random.default_rng(seed)
    blocks = chance.integers(0, 256, (rows * cols // kind.size, kind.nbytes), dtype=np.uint8)
    if kind.name == "MXFP4":
        blocks[:, 0] = chance.integers(100, 150, len(blocks))
    elif kind.name == "NVFP4":
        blocks[:, :4] &= 127
    elif kind.name == "IQ1_M":
        blocks[:, 55] &= 0xBF  # the highest bits of the scale's exponent
    else:
        for place in HALVES.get(kind.name, (0,)):
            halves = chance.normal(size=(len(blocks), 1)).astype(np.float16)
            blocks[:, place : place + 2] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


def permuted(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Queries or keys as llama.cpp orders the channels of Llama."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


def architecture_of(config: Config) -> str:
    """The name that llama.cpp has for the architecture."""
    return ARCHITECTURES.get(config["model_type"], config["model_type"])


def first(config: Config, names: tuple[str, ...], default: Any = None) -> Any:
    """The first of some values that a config has."""
    return next((config[n] for n in names if config.get(n) is not None), default)


def converted(
    folder: Path,
    path: Path,
    kind: str = "F32",
    extra: Mapping[str, Any] | None = None,
    kinds: Mapping[str, str] | None = None,
    change: Callable[[dict[str, Numbers]], dict[str, Numbers]] = dict,
    parts: int = 0,
) -> Path:
    """Write a folder of plain numbers as a GGUF file, its matrices in blocks of a kind.

    `kinds`: another kind where a pattern is found in a tensor's name; `extra`: values beside;
    `change`: what becomes of the tensors; `parts`: how many tensors go into a file, if not all.
    """
    config = json.loads((folder / "config.json").read_text())
    writer = GGUFWriter(path, architecture_of(config), split_max_tensors=parts)
    for key, value in (keys(config) | dict(extra or {})).items():
        whole = type(value) is int
        kind_of = gguf.GGUFValueType.UINT32 if whole else gguf.GGUFValueType.get_type(value)
        writer.add_key_value(key, value, kind_of)
    if (folder / "tokenizer.json").exists():
        _tokenizer(writer, folder)
    for name, value in change(dict(tensors(config, folder))).items():
        chosen = next((k for part, k in (kinds or {}).items() if re.search(part, name)), kind)
        add(writer, name, value, chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: GGUFWriter, name: str, value: Numbers, kind: str) -> None:
    """Add a tensor: a vector, a router and learned positions stay as they are."""
    apart = "ffn_gate_inp" in name or name == "position_embd.weight"
    value = np.ascontiguousarray(value, np.float32)
    if value.ndim == 1 or kind == "F32" or apart:
        writer.add_tensor(name, value)
        return
    number = GGMLQuantizationType[kind]
    size, nbytes = gguf.GGML_QUANT_SIZES[number]
    try:
        blocks = quants.quantize(value, number)
    except NotImplementedError:  # blocks at random: their numbers are as good as others
        kind_like = type("Kind", (), {"name": kind, "size": size, "nbytes": nbytes})
        blocks = random_rows(kind_like, value.size // value.shape[-1], value.shape[-1])
        blocks = blocks.reshape(*value.shape[:-1], -1)
    writer.add_tensor(name, blocks, raw_dtype=number)


def keys(config: Config) -> dict[str, Any]:
    """What a file says of a model, as llama.cpp's converter does."""
    architecture = architecture_of(config)
    found: dict[str, Any] = {}
    for key, names in SIZES.items():
        if (value := first(config, names)) is not None:
            found[key] = value
    if config["model_type"] == "gpt2":
        found["feed_forward_length"] = config.get("n_inner") or 4 * config["n_embd"]
    for key, names in REALS.items():
        if (value := first(config, names)) is not None:
            found[key] = float(value)
    if config["model_type"] == "gpt_neox":
        found["use_parallel_residual"] = config["use_parallel_residual"]
    windowed = config["model_type"] in ("gemma2", "gemma3_text", "olmo3", "phi3")
    if windowed:
        found["attention.sliding_window"] = config.get("sliding_window") or 0
    return {f"{architecture}.{k}": v for k, v in (found | _positions(config)).items()}


def _positions(config: Config) -> dict[str, Any]:
    rope = config.get("rope_parameters") or {}
    near, rope = rope.get("sliding_attention"), rope.get("full_attention", rope)
    if not rope:
        return {}
    found: dict[str, Any] = {"rope.freq_base": float(rope.get("rope_theta", 10000.0))}
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    fraction = first(rope, ("partial_rotary_factor",), config.get("rotary_pct") or 1.0)
    found["rope.dimension_count"] = int(width * fraction)
    if near:
        found["rope.freq_base_swa"] = float(near["rope_theta"])
    kind = rope.get("rope_type")
    if kind in ("linear", "yarn"):
        found |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind in ("longrope", "yarn"):
        original = rope["original_max_position_embeddings"]
        found["rope.scaling.original_context_length"] = original
    if kind == "longrope":
        scale = config["max_position_embeddings"] / original
        found["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(scale) / math.log(original))
    return found


def tensors(config: Config, folder: Path) -> Iterator[tuple[str, Numbers]]:
    """The tensors of a folder under llama.cpp's names, and what its converter makes of them."""
    kind, architecture = config["model_type"], architecture_of(config)
    number = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture)
    table = gguf.get_tensor_name_map(number, first(config, ("num_hidden_layers", "n_layer")))
    stacks: dict[str, dict[int, Numbers]] = {}
    loaded = load_file(folder / "model.safetensors")
    for name, tensor in loaded.items():
        if config.get("tie_word_embeddings") and name in ("lm_head.weight", "embed_out.weight"):
            continue
        value = tensor.float().numpy()
        if expert := re.fullmatch(r"(.+\.experts)\.(\d+)\.(\w+)\.weight", name):
            base = expert[1].replace("block_sparse_moe", "feed_forward").replace("model.", "")
            base = base if kind == "mixtral" else expert[1]
            stacks.setdefault(f"{base}.{expert[3]}", {})[int(expert[2])] = value
            continue
        found = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        yield found, changed(config, name, value)
    for name, experts in stacks.items():
        found = table.get_name(f"{name}.weight", try_suffixes=(".weight",))
        assert found is not None, name
        yield found, np.stack([experts[number] for number in sorted(experts)])
    yield from factors(config)


def changed(config: Config, name: str, value: Numbers) -> Numbers:
    """A tensor as llama.cpp's converter changes it."""
    kind = config["model_type"]
    if kind in ("llama", "mistral", "mixtral"):
        if ".q_proj." in name:
            return permuted(value, config["num_attention_heads"])
        if ".k_proj." in name:
            return permuted(value, config["num_key_value_heads"])
    if kind in ("gemma", "gemma2", "gemma3_text") and name.endswith("norm.weight"):
        return value + 1
    if kind == "gpt2" and re.search(r"\.(c_attn|c_proj|c_fc)\.weight", name):
        return value.T
    if kind == "gpt_neox" and ".query_key_value." in name:
        heads = config["num_attention_heads"]
        apart = value.reshape(heads, 3, len(value) // heads // 3, *value.shape[1:])
        return np.concatenate([apart[:, i].reshape(-1, *value.shape[1:]) for i in range(3)])
    return value


def factors(config: Config) -> Iterator[tuple[str, Numbers]]:
    """What frequencies are divided by."""
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "longrope":
        for name in ("long", "short"):
            yield f"rope_factors_{name}.weight", np.asarray(rope[f"{name}_factor"], np.float32)
    if rope.get("rope_type") == "llama3":
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
        high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
        found: list[float] = []
        for pair in range(width // 2):
            wave = 2 * math.pi * rope["rope_theta"] ** (2 * pair / width)
            smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            blend = 1 / ((1 - smooth) / rope["factor"] + smooth)
            found.append(1.0 if wave < high else rope["factor"] if wave > low else blend)
        yield "rope_freqs.weight", np.asarray(found, np.float32)


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
