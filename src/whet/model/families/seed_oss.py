"""Seed-OSS (ByteDance Seed, 2025): Llama with biases on queries, keys and values."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, decoder, flag
from whet.model.family import Family
from whet.model.names import DECODER
from whet.model.roles import INTO, MLP


def read(config: Config) -> Architecture:
    """Read a config."""
    biases = INTO if flag(config, "attention_bias", default=True) else frozenset[str]()
    biases |= {"attn.o"} if flag(config, "attention_out_bias") else set[str]()
    biases |= MLP if flag(config, "mlp_bias") else frozenset[str]()
    return replace(decoder(config, head_dim=128), biases=biases)


FAMILY = Family(name="seed_oss", model_types=("seed_oss",), read=read, modules=DECODER)
