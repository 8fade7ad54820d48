"""The metadata of a GGUF file as the `config.json` of its original. Torch-free.

Files do not say everything: what they leave out is what llama.cpp takes for granted.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from whet.base.errors import UnsupportedError
from whet.store.gguf.header import Header, damaged
from whet.store.gguf.names import BLOCKS

Values = Mapping[str, Any]
CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
GEMMA_27B = 46  # blocks; its scores are divided by hidden ÷ heads, others' by the width of a head
SIZES = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
}


class Metadata:
    """Values of the architecture that a file names; each is checked where it is read."""

    def __init__(self, path: Path, values: Values) -> None:
        self.path, self.values = path, values
        self.architecture = self.text("general.architecture")
        if self.architecture not in BLOCKS:
            raise UnsupportedError(
                f"{path} holds a model of the architecture {self.architecture!r}, "
                f"expected one of {', '.join(BLOCKS)}",
                "give the original model",
            )

    def text(self, key: str) -> str:
        """Return a text that must be there."""
        found = self.values.get(key)
        if not isinstance(found, str):
            raise damaged(self.path, f"has {key} = {str(found)[:40]!r}, expected a text")
        return found

    def own(self, key: str) -> Any:  # noqa: ANN401 (as the file says)
        """Return a value of the architecture, or None."""
        return self.values.get(f"{self.architecture}.{key}")

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a positive integer of the architecture."""
        found = self.own(key)
        if isinstance(found, list) and found and len(set(cast("list[Any]", found))) == 1:
            found = found[0]  # the same in every block
        found = default if found is None else found
        if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < 1 << 31:
            where = f"{self.architecture}.{key}"
            raise damaged(
                self.path, f"has {where} = {str(found)[:40]}, expected a positive integer"
            )
        return found

    def real(self, key: str, default: float | None = None) -> float:
        """Return a number of the architecture."""
        found = self.own(key)
        found = default if found is None else found
        if isinstance(found, bool) or not isinstance(found, int | float):
            where = f"{self.architecture}.{key}"
            raise damaged(self.path, f"has {where} = {str(found)[:40]}, expected a number")
        return float(found)


def config(path: Path, header: Header, factors: Callable[[str], Sequence[float]]) -> dict[str, Any]:
    """Return the configuration; `factors` reads a short tensor of numbers."""
    meta = Metadata(path, header.values)
    if meta.own("expert_count"):
        raise UnsupportedError(
            f"{path} holds a mixture of experts, which whet does not read from GGUF",
            "give the original model",
        )
    found: dict[str, Any] = {"model_type": meta.architecture}
    found["architectures"] = [CLASSES[meta.architecture]]
    found |= {name: meta.whole(key) for name, key in SIZES.items()}
    found |= {
        "num_key_value_heads": meta.whole("attention.head_count_kv", found["num_attention_heads"]),
        "vocab_size": _vocabulary(path, header),
        "rms_norm_eps": meta.real("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **_tokens(meta.values),
    }
    found["head_dim"] = meta.whole(
        "attention.key_length", found["hidden_size"] // found["num_attention_heads"] or 1
    )
    return found | _positions(meta, header, found, factors) | _choices(meta, header, found)


def _vocabulary(path: Path, header: Header) -> int:
    table = header.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise damaged(path, "has no table token_embd.weight")
    return table.shape[0]


def _tokens(values: Values) -> dict[str, int]:
    """Return the ids of the beginning and of the end."""
    found = {name: values.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    return {f"{name}_token_id": value for name, value in found.items() if type(value) is int}


def _positions(
    meta: Metadata,
    header: Header,
    found: Mapping[str, Any],
    factors: Callable[[str], Sequence[float]],
) -> dict[str, Any]:
    """Return the rotary positions and how they are stretched."""
    context = found["max_position_embeddings"]
    turned = meta.whole("rope.dimension_count", found["head_dim"])
    rope: dict[str, Any] = {"rope_theta": meta.real("rope.freq_base", 10_000.0)}
    rope["partial_rotary_factor"] = turned / found["head_dim"]
    kind = meta.own("rope.scaling.type")
    trained = meta.whole("rope.scaling.original_context_length", context)
    if "rope_freqs.weight" in header.tensors:
        own = list(factors("rope_freqs.weight"))
        rope |= {"rope_type": "longrope", "short_factor": own, "long_factor": own}
        rope |= {"attention_factor": 1.0, "original_max_position_embeddings": context}
    elif "rope_factors_long.weight" in header.tensors:
        names = ("short", "long")
        rope |= {f"{name}_factor": list(factors(f"rope_factors_{name}.weight")) for name in names}
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": trained}
        if meta.own("rope.scaling.attn_factor") is not None:
            rope["attention_factor"] = meta.real("rope.scaling.attn_factor")
    elif kind not in (None, "none"):
        if kind not in ("linear", "yarn"):
            raise damaged(meta.path, f"stretches positions in the way {str(kind)[:40]!r}")
        rope |= {"rope_type": kind, "factor": meta.real("rope.scaling.factor", 1.0)}
        rope |= {"original_max_position_embeddings": trained} if kind == "yarn" else {}
    return {"rope_parameters": rope}


def _choices(meta: Metadata, header: Header, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an architecture has besides."""
    if meta.architecture == "llama":
        return {"attention_bias": "blk.0.attn_q.bias" in header.tensors}
    if meta.architecture == "phi3":
        window = meta.own("attention.sliding_window")
        return {"sliding_window": meta.whole("attention.sliding_window") if window else None}
    if meta.architecture != "gemma2":
        return {}
    wide = found["hidden_size"] // found["num_attention_heads"]
    scalar = wide if found["num_hidden_layers"] == GEMMA_27B else found["head_dim"]
    return {
        "query_pre_attn_scalar": scalar,
        "sliding_window": meta.whole("attention.sliding_window", 4096),
        "attn_logit_softcapping": meta.real("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": meta.real("final_logit_softcapping", 30.0),
    }
