"""The rotary positions of a GGUF file, in the words of its original's configuration. Torch-free."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from whet.store.gguf.header import damaged
from whet.store.gguf.metadata import Metadata

Factors = Callable[[str], Sequence[float]]
Rope = dict[str, Any]
FREQUENCIES, LONG = "rope_freqs.weight", "rope_factors_long.weight"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {
    "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow",
    "attention_factor": "yarn_attn_factor",
}  # fmt: skip


def positions(meta: Metadata, found: Mapping[str, Any], factors: Factors) -> dict[str, Any]:
    """Return `rope_parameters`; `factors` reads a short tensor of numbers."""
    width, context = found["head_dim"], found["max_position_embeddings"]
    turned = meta.whole("rope.dimension_count", width)
    rope: Rope = {"rope_type": "default", "rope_theta": meta.real("rope.freq_base", 10_000.0)}
    if turned != width:
        rope["partial_rotary_factor"] = turned / width
    if meta.has(FREQUENCIES):
        return {"rope_parameters": rope | _divided(rope, list(factors(FREQUENCIES)), context)}
    if meta.has(LONG):
        return _long(meta, rope, factors, context)
    return {"rope_parameters": rope | _scaled(meta, context)}


def _scaled(meta: Metadata, context: int) -> Rope:
    """Return how positions are stretched by one factor."""
    kind, old = meta.own("rope.scaling.type"), meta.real("rope.scale_linear", 1.0)
    if kind is None and old not in (0.0, 1.0):  # as files of version 2 and before say it
        return {"rope_type": "linear", "factor": old}
    if kind not in (None, "none", "longrope", "linear", "yarn"):
        raise damaged(meta.path, f"stretches positions in the way {str(kind)[:40]!r}")
    factor = meta.real("rope.scaling.factor", 1.0)
    if kind not in ("linear", "yarn") or factor in (0.0, 1.0):
        return {}
    rope: Rope = {"rope_type": kind, "factor": factor}
    if kind == "linear":
        return rope
    rope["original_max_position_embeddings"] = meta.whole(
        "rope.scaling.original_context_length", max(1, round(context / factor))
    )
    said = {name: f"rope.scaling.{key}" for name, key in YARN.items()}
    return rope | {name: meta.real(key) for name, key in said.items() if meta.own(key) is not None}


def _long(meta: Metadata, rope: Rope, factors: Factors, context: int) -> dict[str, Any]:
    """Return two lists of factors: for texts within the trained context, and beyond it."""
    trained = meta.whole("rope.scaling.original_context_length", context)
    names = ("short", "long")
    rope |= {f"{name}_factor": list(factors(f"rope_factors_{name}.weight")) for name in names}
    rope |= {"rope_type": "longrope", "original_max_position_embeddings": trained}
    if meta.own("rope.scaling.attn_factor") is not None:
        rope["attention_factor"] = meta.real("rope.scaling.attn_factor")
    return {"rope_parameters": rope, "original_max_position_embeddings": trained}


def _divided(rope: Rope, factors: list[float], context: int) -> Rope:
    """Return what divides each frequency: the rule of Llama 3 where it gives these numbers."""
    rule = LLAMA3 | {"rope_type": "llama3", "factor": max(factors, default=1.0)}
    if np.allclose(llama3(rope["rope_theta"], len(factors), rule), factors, rtol=1e-5):
        return rule
    own: Rope = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors}
    return own | {"attention_factor": 1.0, "original_max_position_embeddings": context}


def llama3(theta: float, pairs: int, rule: Mapping[str, Any]) -> Sequence[float]:
    """Return what the frequencies of Llama 3 are divided by."""
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    turns = rule["original_max_position_embeddings"] / (2 * math.pi)
    turns = turns * theta ** (-np.arange(pairs) / pairs)  # over the trained context
    blend = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - blend) / rule["factor"] + blend)).tolist()
