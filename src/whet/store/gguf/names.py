"""What llama.cpp calls the tensors of a model, and what its original calls them. Torch-free.

Read from llama.cpp's `convert_hf_to_gguf.py` (its folder `conversion`) and gguf 0.19,
`tensor_mapping.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from whet.store.gguf.rows import Rows

Names = Mapping[str, str]
Order = Literal["", "paired", "interleaved"]

ENDS: Names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION: Names = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
BLOCK: Names = {
    **ATTENTION,
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
QK: Names = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
POST: Names = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
SANDWICH: Names = {**BLOCK, **POST, "ffn_norm": "pre_feedforward_layernorm"}
OLMO: Names = {k: v for k, v in (BLOCK | QK | POST).items() if k not in ("attn_norm", "ffn_norm")}


def _experts(inside: str, gate: str, up: str, down: str) -> Names:
    names = {"ffn_gate": gate, "ffn_up": up, "ffn_down": down}
    return {key: f"{inside}.experts.{{e}}.{name}" for key, name in names.items()}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tensors of an architecture go.

    `experts` are the modules of expert `{e}`; `orders` says which tensors have their rows in another
    order; `shifted`: norms are stored with one added; `transposed`: the original stores its blocks'
    plain matrices as (in, out).
    """

    model_type: str
    class_: str
    block: Names
    ends: Names = field(default_factory=lambda: ENDS)
    layers: str = "model.layers."
    experts: Names = field(default_factory=dict[str, str])
    orders: Mapping[str, Order] = field(default_factory=dict[str, Order])
    shifted: bool = False
    transposed: bool = False


PAIRED: Mapping[str, Order] = {"attn_q": "paired", "attn_k": "paired"}
MIXTRAL = Layout(
    "mixtral",
    "MixtralForCausalLM",
    {
        **ATTENTION,
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate_inp": "block_sparse_moe.gate",
    },
    experts=_experts("block_sparse_moe", "w1", "w3", "w2"),
    orders=PAIRED,
)
OLMO3 = Layout("olmo3", "Olmo3ForCausalLM", OLMO)
LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout("llama", "LlamaForCausalLM", BLOCK, orders=PAIRED),
    "qwen2": Layout("qwen2", "Qwen2ForCausalLM", BLOCK),
    "qwen3": Layout("qwen3", "Qwen3ForCausalLM", BLOCK | QK),
    "qwen3moe": Layout(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        BLOCK | QK | {"ffn_gate_inp": "mlp.gate"},
        experts=_experts("mlp", "gate_proj", "up_proj", "down_proj"),
    ),
    "gemma": Layout("gemma", "GemmaForCausalLM", BLOCK, shifted=True),
    "gemma2": Layout("gemma2", "Gemma2ForCausalLM", SANDWICH, shifted=True),
    "gemma3": Layout("gemma3_text", "Gemma3ForCausalLM", SANDWICH | QK, shifted=True),
    "phi3": Layout(
        "phi3",
        "Phi3ForCausalLM",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
    ),
    "gpt2": Layout(
        "gpt2",
        "GPT2LMHeadModel",
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        ends={
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        layers="transformer.h.",
        transposed=True,
    ),
    "gptneox": Layout(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        ends={
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
        },
        layers="gpt_neox.layers.",
        orders={"attn_qkv": "interleaved"},
    ),
    "olmo2": Layout("olmo2", "Olmo2ForCausalLM", OLMO),
    "starcoder2": Layout(
        "starcoder2",
        "Starcoder2ForCausalLM",
        {
            **ATTENTION,
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
    ),
    "stablelm": Layout("stablelm", "StableLmForCausalLM", BLOCK),
    "seed_oss": Layout(
        "seed_oss",
        "SeedOssForCausalLM",
        {k: v for k, v in BLOCK.items() if k != "ffn_norm"}
        | {"post_attention_norm": "post_attention_layernorm"},
    ),
}  # by the architecture that a file names
UNREAD = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
PLAIN = frozenset({"ffn_gate_inp", "position_embd"})  # looked up or chosen by: never in blocks
SCALE, INPUT_SCALE = ".scale", ".input_scale"  # of the blocks of NVFP4, and of their inputs
_NAME = re.compile(
    r"(?:blk\.(?P<layer>\d{1,5})\.)?(?P<what>\w+?)(?P<stack>_exps)?(?:\.(?P<expert>\d{1,5}))?"
    r"\.(?P<part>weight|bias)"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of the original, and the rows of the file's tensor that are it.

    `expert`: its number, where the file's tensor holds those of all experts.
    """

    name: str
    rows: Rows
    what: str
    expert: int = 0

    @property
    def module(self) -> str:
        """The module that it belongs to."""
        return self.name.rpartition(".")[0]

    @property
    def part(self) -> str:
        """`weight` or `bias`."""
        return self.name.rpartition(".")[2]


def pieces(
    layout: Layout, config: Mapping[str, Any], name: str, shape: tuple[int, ...]
) -> tuple[Piece, ...]:
    """Return what a tensor of a file is in the original: none where it is nothing there."""
    found = _NAME.fullmatch(name)
    if found is None:
        return ()
    what, part = found["what"], found["part"]
    if found["layer"] is None:
        module = layout.ends.get(what)
        return (Piece(f"{module}.{part}", Rows(0, shape[0]), what),) if module else ()
    prefix = f"{layout.layers}{int(found['layer'])}."
    if found["stack"] or found["expert"]:
        stacked = found["expert"] is None
        numbers = range(shape[0]) if stacked else (int(found["expert"]),)
        return tuple(_of_experts(layout, prefix, what, part, shape, numbers, stacked=stacked))
    modules = {what: shape[0]} if what in layout.block else _fused(layout, config, what)
    return tuple(_of_block(layout, config, prefix, modules, part))


def _fused(layout: Layout, config: Mapping[str, Any], what: str) -> dict[str, int]:
    """Return the tensors that lie one after the other in one, and the rows of each."""
    if what != "attn_qkv" or "attn_q" not in layout.block:
        return {}
    query, key = config["num_attention_heads"], config["num_key_value_heads"]
    heads = {"attn_q": query, "attn_k": key, "attn_v": key}
    return {name: count * config["head_dim"] for name, count in heads.items()}


def _of_block(
    layout: Layout,
    config: Mapping[str, Any],
    prefix: str,
    modules: Mapping[str, int],
    part: str,
) -> Iterator[Piece]:
    start = 0
    for what, count in modules.items():
        order = layout.orders.get(what, "")
        key = "num_key_value_heads" if what == "attn_k" else "num_attention_heads"
        rows = Rows(start, start + count, order, config[key] if order else 0)
        yield Piece(f"{prefix}{layout.block[what]}.{part}", rows, what)
        start += count


def _of_experts(
    layout: Layout,
    prefix: str,
    what: str,
    part: str,
    shape: tuple[int, ...],
    numbers: Iterable[int],
    *,
    stacked: bool,
) -> Iterator[Piece]:
    """Yield the matrices of experts; gate and up may lie one after the other."""
    joined = ("ffn_gate", "ffn_up") if what == "ffn_gate_up" else (what,)
    if not all(name in layout.experts for name in joined) or len(shape) != 2 + stacked:
        return
    count = shape[-2] // len(joined)
    for place, expert in enumerate(numbers):
        for index, name in enumerate(joined):
            start = place * shape[-2] + index * count
            module = layout.experts[name].format(e=expert)
            yield Piece(f"{prefix}{module}.{part}", Rows(start, start + count), what, expert)
