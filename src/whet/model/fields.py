"""What a family's config.json calls the sizes and choices of a model. Needs no torch."""

from collections.abc import Mapping
from typing import Any

from whet.base.errors import UnsupportedError
from whet.model.config import Config

USUAL: Mapping[str, str] = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "activation": "hidden_act",
    "window": "sliding_window",
}
NO_HEADS: Mapping[str, str] = {"kv_heads": "", "head_dim": "", "window": ""}
DIFFERENT: Mapping[str, Mapping[str, str]] = {
    "gpt2": NO_HEADS
    | {
        "layers": "n_layer",
        "hidden": "n_embd",
        "heads": "n_head",
        "ffn": "n_inner",
        "activation": "activation_function",
    },
    "gpt_neox": NO_HEADS,
    "opt": NO_HEADS | {"ffn": "ffn_dim", "activation": "activation_function"},
    "gemma2": {"activation": "hidden_activation"},
    "gemma3": {"activation": "hidden_activation"},
    "gemma": {"window": ""},
    "llama": {"window": ""},
    "olmo2": {"window": ""},
    "stablelm": {"window": "", "head_dim": ""},
    "starcoder2": {"head_dim": ""},
    "seed_oss": {"window": ""},
    "mixtral": {"experts": "num_local_experts", "expert_ffn": "intermediate_size"},
    "qwen3_moe": {"experts": "num_experts", "expert_ffn": "moe_intermediate_size"},
}  # what a family does not say is empty; expert_ffn: the channels of each expert
WHOLE_HEADS = (
    "llama",
    "gemma",
    "gemma2",
    "gemma3",
)  # transformers wants hidden to be a multiple of heads


def field(family: str, size: str) -> str | None:
    """Return the name of a size in a family's config.json, or `None` where it has none."""
    return DIFFERENT.get(family, {}).get(size, USUAL.get(size)) or None


def resized(config: Config, family: str, **sizes: object) -> dict[str, Any]:
    """Return a config with other sizes, by the words of `Architecture`."""
    changed = dict(config)
    for size, value in sizes.items():
        name = field(family, size)
        if name is None:
            raise UnsupportedError(f"config.json of {family} does not tell {size}")
        changed[name] = value
    if "experts" in sizes:  # releases of transformers write either name, or both
        names = [name for name in ("num_experts", "num_local_experts") if name in config]
        changed |= dict.fromkeys(names, sizes["experts"])
    return changed


def as_mistral(config: Config, window: int | None) -> dict[str, Any]:
    """Return the config of a Llama without biases as a Mistral's: the same model, with a window."""
    changed = dict(config) | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    changed.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    return changed | {"sliding_window": window}
