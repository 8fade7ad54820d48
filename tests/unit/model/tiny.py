"""Tiny models of every family with random weights, made by transformers, and as sources."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from whet.model.source import InMemory

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
MHA = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
GPT2 = {
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
OPT = {k: v for k, v in MHA.items() if k != "intermediate_size"} | {"ffn_dim": 48}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
SCALED = {"rope_theta": 500.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 2.5, 3.0, 4.0],
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES),
    "llama-tied": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "llama-biases": ("LlamaConfig", SIZES | {"attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("LlamaConfig", SIZES | {"head_dim": 12}),
    "llama-llama3": ("LlamaConfig", SIZES | {"rope_parameters": SCALED | LLAMA3}),
    "llama-linear": ("LlamaConfig", SIZES | {"rope_parameters": SCALED | {"rope_type": "linear"}}),
    "llama-dynamic": (
        "LlamaConfig",
        SIZES
        | {"max_position_embeddings": 12, "rope_parameters": SCALED | {"rope_type": "dynamic"}},
    ),
    "llama-yarn": ("LlamaConfig", SIZES | {"rope_parameters": SCALED | YARN}),
    "mistral": ("MistralConfig", SIZES | {"sliding_window": 5}),
    "mistral-unlimited": ("MistralConfig", SIZES | {"sliding_window": None}),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen2-windows": (
        "Qwen2Config",
        SIZES | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", SIZES | {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-biases": ("Qwen3Config", SIZES | {"head_dim": 8, "attention_bias": True}),
    "gemma2": (
        "Gemma2Config",
        SIZES
        | {
            "head_dim": 12,
            "query_pre_attn_scalar": 10,
            "sliding_window": 5,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        SIZES
        | {
            "head_dim": 12,
            "query_pre_attn_scalar": 10,
            "sliding_window": 5,
            "num_hidden_layers": 3,
            "sliding_window_pattern": 2,
            "rope_parameters": GEMMA3_ROPE,
        },
    ),
    "phi3": ("Phi3Config", SIZES | {"rope_parameters": {"partial_rotary_factor": 0.5}}),
    "phi3-window": ("Phi3Config", SIZES | {"sliding_window": 5}),
    "phi3-longrope": (
        "Phi3Config",
        SIZES | {"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
    ),
    "olmo2": ("Olmo2Config", SIZES),
    "olmo3": ("Olmo3Config", SIZES | {"sliding_window": 5, "num_hidden_layers": 5}),
    "gemma": ("GemmaConfig", SIZES | {"head_dim": 12}),
    "starcoder2": ("Starcoder2Config", SIZES | {"sliding_window": 5}),
    "stablelm": ("StableLmConfig", SIZES | {"use_qkv_bias": True}),
    "seed_oss": ("SeedOssConfig", SIZES | {"head_dim": 12, "attention_out_bias": True}),
    "gpt2": ("GPT2Config", GPT2 | {"n_inner": 40}),
    "gpt2-depth": ("GPT2Config", GPT2 | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("GPTNeoXConfig", MHA),
    "gpt_neox-serial": (
        "GPTNeoXConfig",
        MHA | {"use_parallel_residual": False, "attention_bias": False},
    ),
    "opt": ("OPTConfig", OPT),
    "opt-after": ("OPTConfig", OPT | {"do_layer_norm_before": False}),
    "opt-bare": ("OPTConfig", OPT | {"layer_norm_elementwise_affine": False, "enable_bias": False}),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 5}),
    "mixtral-window": ("MixtralConfig", SIZES | {"num_local_experts": 3, "sliding_window": 5}),
    "qwen3_moe": ("Qwen3MoeConfig", SIZES | EXPERTS | {"norm_topk_prob": True}),
    "qwen3_moe-some": (
        "Qwen3MoeConfig",
        SIZES
        | EXPERTS
        | {"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    ),
}
STACKED = ("mixtral", "qwen3_moe", "qwen3_moe-some")


def randomize(model: PreTrainedModel, seed: int) -> None:
    """Make every parameter count: gains and biases too."""
    generator = torch.Generator().manual_seed(seed)
    shifted = model.config.model_type.startswith("gemma")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            fan = parameter.shape[-1]
            parameter.data = noise * (0.7 if "embed" in name or "wte" in name else 1.2 * fan**-0.5)
        elif name.endswith("bias"):
            parameter.data = noise * 0.3
        else:
            parameter.data = noise * 0.3 + (0 if shifted else 1)


@cache
def reference(case: str) -> PreTrainedModel:
    """Return the model of transformers, in float32."""
    kind, fields = CASES[case]
    model = AutoModelForCausalLM.from_config(getattr(transformers, kind)(**fields)).eval()
    randomize(model, 1)
    return model


@cache
def source(case: str) -> InMemory:
    """Return the same weights under the names that files have."""
    with tempfile.TemporaryDirectory() as folder:
        reference(case).save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        return InMemory(config, load_file(Path(folder) / "model.safetensors"))


def stacked(case: str) -> InMemory:
    """Return the same weights with all experts of a block in one tensor."""
    tensors = {k: v.detach().clone() for k, v in reference(case).state_dict().items()}
    return InMemory(source(case).config, tensors)


def tokens(count: int, batch: int = 2, seed: int = 0) -> Tensor:
    """Return random tokens."""
    return torch.randint(0, 61, (batch, count), generator=torch.Generator().manual_seed(seed))
