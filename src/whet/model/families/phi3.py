"""Phi 3, 3.5 and 4: queries, keys and values in one matrix, gate and up in another."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, decoder, window
from whet.model.family import Family
from whet.model.names import DECODER


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config)
    return replace(
        arch,
        qkv="joined",
        gate_up="joined",
        windows=(window(config, None),) * arch.layers,
    )


FAMILY = Family(
    name="phi3",
    model_types=("phi3",),
    read=read,
    modules=DECODER
    | {
        "attn.qkv": "{p}layers.{i}.self_attn.qkv_proj",
        "mlp.gate_up": "{p}layers.{i}.mlp.gate_up_proj",
    },
)
