"""Gemma 2 (arXiv:2408.00118): norms on both sides, soft caps, every other block with a window."""

from dataclasses import replace

from whet.model.architecture import SANDWICH, Architecture, Norm
from whet.model.config import (
    Config,
    cap,
    decoder,
    flag,
    nonlinearity,
    positive,
    refuse,
    window,
    windows,
)
from whet.model.family import Family
from whet.model.names import DECODER
from whet.model.roles import ATTENTION

MODULES = DECODER | {
    "attn.post": "{p}layers.{i}.post_attention_layernorm",
    "mlp.pre": "{p}layers.{i}.pre_feedforward_layernorm",
    "mlp.post": "{p}layers.{i}.post_feedforward_layernorm",
}


def gemma(config: Config) -> Architecture:
    """Read what Gemma 2 and 3 share: the norm's gain is one more than stored, embeddings scaled."""
    refuse(config, "use_bidirectional_attention", "attention to later tokens")
    arch = decoder(config, head_dim=256)
    return replace(
        arch,
        norm=Norm("rms", arch.norm.eps, offset=1.0),
        norms=SANDWICH,
        activation=nonlinearity(config, "hidden_activation", "gelu_pytorch_tanh"),
        biases=ATTENTION if flag(config, "attention_bias") else frozenset[str](),
        attention_scale=positive(config, "query_pre_attn_scalar", 256.0) ** -0.5,
        embedding_scale=arch.hidden**0.5,
        tied=flag(config, "tie_word_embeddings", default=True),
    )


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = gemma(config)
    return replace(
        arch,
        windows=windows(
            config, window(config, 4096), tuple(i % 2 == 0 for i in range(arch.layers))
        ),
        attention_cap=cap(config, "attn_logit_softcapping", 50.0),
        logit_cap=cap(config, "final_logit_softcapping", 30.0),
    )


FAMILY = Family(name="gemma2", model_types=("gemma2",), read=read, modules=MODULES)
