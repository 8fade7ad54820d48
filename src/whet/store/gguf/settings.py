"""The metadata of a GGUF file as the `config.json` of its original. Torch-free.

Files do not say everything: what they leave out is what llama.cpp takes for granted (its
`src/models/*.cpp`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.base.errors import UnsupportedError
from whet.store.gguf.header import Header, damaged
from whet.store.gguf.metadata import Metadata
from whet.store.gguf.names import LAYOUTS, MIXTRAL, OLMO3, Layout
from whet.store.gguf.positions import Factors, positions

Values = Mapping[str, Any]
GEMMA_27B = {"gemma2": 46, "gemma3": 62}  # blocks of those whose scores hidden ÷ heads divides
SIZES = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
}
GPT2 = {
    "num_hidden_layers": "n_layer", "hidden_size": "n_embd", "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Description:
    """What a file describes: where its tensors go, and the configuration."""

    layout: Layout
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says, and what was found of it already."""

    meta: Metadata
    found: Values


def describe(path: Path, header: Header, factors: Factors) -> Description:
    """Return the layout and the configuration; `factors` reads a short tensor of numbers."""
    meta = Metadata(path, header)
    layout = _layout(meta)
    found: dict[str, Any] = {"model_type": layout.model_type, "architectures": [layout.class_]}
    found |= _sizes(meta, layout)
    found |= {"vocab_size": _vocabulary(path, header), **_tokens(meta.values)}
    found["tie_word_embeddings"] = not meta.has("output.weight")
    choices = CHOICES.get(layout.model_type, _rms)
    if layout.model_type != "gpt2":
        found |= positions(meta, found, factors)
    return Description(layout, found | choices(Reading(meta, found)))


def _layout(meta: Metadata) -> Layout:
    found = LAYOUTS.get(meta.architecture)
    if found is None:
        raise UnsupportedError(
            f"{meta.path} holds a model of the architecture {meta.architecture!r}, "
            f"expected one of {', '.join(LAYOUTS)}",
            "give the original model",
        )
    if meta.architecture == "olmo2" and meta.own("attention.sliding_window"):
        return OLMO3
    if not meta.own("expert_count"):
        return found
    if meta.architecture == "llama":
        return MIXTRAL
    if not found.experts:
        raise UnsupportedError(
            f"{meta.path} holds a mixture of experts of the architecture {meta.architecture!r}, "
            "expected llama or qwen3moe",
            "give the original model",
        )
    return found


def _sizes(meta: Metadata, layout: Layout) -> dict[str, Any]:
    """Return the sizes that every architecture has."""
    missing = {"feed_forward_length": 1} if layout.experts else {}
    found: dict[str, Any] = {name: meta.whole(key, missing.get(key)) for name, key in SIZES.items()}
    heads = found["num_attention_heads"]
    found["num_key_value_heads"] = meta.whole("attention.head_count_kv", heads)
    width = meta.whole("attention.key_length", found["hidden_size"] // heads or 1)
    if meta.whole("attention.value_length", width) != width:
        raise UnsupportedError(
            f"{meta.path} has values that are wider or narrower than its keys",
            "give the original model",
        )
    return found | {"head_dim": width}


def _vocabulary(path: Path, header: Header) -> int:
    table = header.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise damaged(path, "has no table token_embd.weight")
    return table.shape[0]


def _tokens(values: Values) -> dict[str, int]:
    """Return the ids of the beginning and of the end."""
    found = {name: values.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    return {f"{name}_token_id": value for name, value in found.items() if type(value) is int}


def _rms(read: Reading) -> dict[str, Any]:
    return {"rms_norm_eps": read.meta.real("attention.layer_norm_rms_epsilon")}


def _window(read: Reading, default: int | None = None) -> int | None:
    """Return how far back attention sees; 0 stands for all the way."""
    said = read.meta.own("attention.sliding_window")
    return read.meta.whole("attention.sliding_window") if said else None if said == 0 else default


def _layer_types(read: Reading, period: int, default: int | None = None) -> dict[str, Any]:
    """Return the window and which blocks have it: all but each `period`-th."""
    width = _window(read, default)
    sliding = read.meta.sliding(read.found["num_hidden_layers"], period)
    kinds = ["sliding_attention" if one and width else "full_attention" for one in sliding]
    return {"sliding_window": width, "layer_types": kinds}


def _llama(read: Reading) -> dict[str, Any]:
    return _rms(read) | {
        "attention_bias": read.meta.has("blk.0.attn_q.bias")
        or read.meta.has("blk.0.attn_qkv.bias"),
        "mlp_bias": read.meta.has("blk.0.ffn_up.bias"),
    }


def _mixtral(read: Reading) -> dict[str, Any]:
    return _rms(read) | {
        "num_local_experts": read.meta.whole("expert_count"),
        "num_experts_per_tok": read.meta.whole("expert_used_count"),
        "sliding_window": None,
    }


def _qwen3_moe(read: Reading) -> dict[str, Any]:
    used = read.meta.whole("expert_used_count")
    width = max(1, read.found["intermediate_size"] // used)
    return _rms(read) | {
        "num_experts": read.meta.whole("expert_count"),
        "num_experts_per_tok": used,
        "moe_intermediate_size": read.meta.whole("expert_feed_forward_length", width),
        "norm_topk_prob": True,
    }


def _phi3(read: Reading) -> dict[str, Any]:
    return _rms(read) | {"sliding_window": _window(read)}


def _gemma2(read: Reading) -> dict[str, Any]:
    return _layer_types(read, 2, 4096) | {
        **_rms(read),
        "query_pre_attn_scalar": _score_divisor(read),
        "attn_logit_softcapping": read.meta.real("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": read.meta.real("final_logit_softcapping", 30.0),
    }


def _gemma3(read: Reading) -> dict[str, Any]:
    everywhere = dict(read.found["rope_parameters"])
    if read.meta.own("rope.freq_base") is None:
        everywhere["rope_theta"] = 1e6
    near = {"rope_type": "default", "rope_theta": read.meta.real("rope.freq_base_swa", 10_000.0)}
    cap = read.meta.own("final_logit_softcapping")
    return _layer_types(read, 6) | {
        **_rms(read),
        "query_pre_attn_scalar": _score_divisor(read),
        "rope_parameters": {"full_attention": everywhere, "sliding_attention": near},
        "final_logit_softcapping": read.meta.real("final_logit_softcapping") if cap else None,
    }


def _score_divisor(read: Reading) -> int:
    """Return the number whose root divides the scores of attention."""
    found = read.found
    if found["num_hidden_layers"] != GEMMA_27B[read.meta.architecture]:
        return found["head_dim"]
    return found["hidden_size"] // found["num_attention_heads"]


def _olmo3(read: Reading) -> dict[str, Any]:
    everywhere = read.found["rope_parameters"]
    near = {"rope_type": "default", "rope_theta": everywhere["rope_theta"]}
    ropes = {"full_attention": everywhere, "sliding_attention": near}
    return _rms(read) | _layer_types(read, 4) | {"rope_parameters": ropes}


def _layer_norm(read: Reading) -> float:
    return read.meta.real("attention.layer_norm_epsilon")


def _gpt2(read: Reading) -> dict[str, Any]:
    return {name: read.found[key] for key, name in GPT2.items()} | {
        "layer_norm_epsilon": _layer_norm(read)
    }


def _gpt_neox(read: Reading) -> dict[str, Any]:
    rope = read.found["rope_parameters"]
    return {
        "layer_norm_eps": _layer_norm(read),
        "use_parallel_residual": read.meta.flag("use_parallel_residual", default=True),
        "rotary_pct": rope.get("partial_rotary_factor", 1.0),
        "rope_parameters": {"partial_rotary_factor": 1.0, **rope},
    }


def _starcoder2(read: Reading) -> dict[str, Any]:
    return {"norm_epsilon": _layer_norm(read), "sliding_window": _window(read)}


def _stablelm(read: Reading) -> dict[str, Any]:
    return {
        "layer_norm_eps": _layer_norm(read),
        "use_parallel_residual": not read.meta.has("blk.0.ffn_norm.weight"),
        "qk_layernorm": read.meta.has("blk.0.attn_q_norm.weight"),
        "use_qkv_bias": read.meta.has("blk.0.attn_q.bias"),
    }


def _seed_oss(read: Reading) -> dict[str, Any]:
    return _rms(read) | {
        "attention_bias": read.meta.has("blk.0.attn_q.bias"),
        "attention_out_bias": read.meta.has("blk.0.attn_output.bias"),
    }


CHOICES: Mapping[str, Callable[[Reading], dict[str, Any]]] = {
    "llama": _llama, "mixtral": _mixtral, "qwen3_moe": _qwen3_moe, "phi3": _phi3,
    "gemma2": _gemma2, "gemma3_text": _gemma3, "olmo3": _olmo3, "gpt2": _gpt2,
    "gpt_neox": _gpt_neox, "starcoder2": _starcoder2, "stablelm": _stablelm,
    "seed_oss": _seed_oss,
}  # what an architecture has besides  # fmt: skip
