"""What llama.cpp calls the tensors of a model, and what its original calls them. Torch-free.

Read from llama.cpp's `convert_hf_to_gguf.py` and gguf 0.19, `tensor_mapping.py`.
"""

import re
from collections.abc import Mapping

ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
QK = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
BLOCKS: Mapping[str, Mapping[str, str]] = {
    "llama": BLOCK,
    "qwen2": BLOCK,
    "qwen3": BLOCK | QK,
    "gemma2": BLOCK
    | {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    "phi3": {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_up": "mlp.gate_up_proj",
        "ffn_down": "mlp.down_proj",
    },
}  # by the architecture that a file names
UNREAD = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
_NAME = re.compile(r"(?:blk\.(?P<layer>\d{1,5})\.)?(?P<what>\w+)\.(?P<part>weight|bias)")


def original(architecture: str, name: str) -> str | None:
    """Return a tensor's name in the original checkpoint, or None where there is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    if found["layer"] is None:
        module = ENDS.get(found["what"])
        return module and f"{module}.{found['part']}"
    module = BLOCKS[architecture].get(found["what"])
    return module and f"model.layers.{int(found['layer'])}.{module}.{found['part']}"
