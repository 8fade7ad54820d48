"""OLMo 2 (arXiv:2501.00656): norms after attention and MLP, and over all queries and all keys."""

from dataclasses import replace

from whet.model.architecture import POST, Architecture
from whet.model.config import Config, decoder, flag
from whet.model.family import Family
from whet.model.names import DECODER, QK_NORMS
from whet.model.roles import ATTENTION


def read(config: Config) -> Architecture:
    """Read a config."""
    return replace(
        decoder(config),
        norms=POST,
        qk_norm="full",
        biases=ATTENTION if flag(config, "attention_bias") else frozenset[str](),
    )


FAMILY = Family(
    name="olmo2",
    model_types=("olmo2",),
    read=read,
    modules=DECODER
    | QK_NORMS
    | {
        "attn.post": "{p}layers.{i}.post_attention_layernorm",
        "mlp.post": "{p}layers.{i}.post_feedforward_layernorm",
    },
)
