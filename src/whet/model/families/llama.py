"""Llama 1 to 3, TinyLlama, SmolLM and the many models of their shape."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, decoder, flag
from whet.model.family import Family
from whet.model.names import DECODER
from whet.model.roles import ATTENTION, MLP


def read(config: Config) -> Architecture:
    """Read a config."""
    biases = (ATTENTION if flag(config, "attention_bias") else frozenset()) | (
        MLP if flag(config, "mlp_bias") else frozenset()
    )
    return replace(decoder(config), biases=biases)


FAMILY = Family(name="llama", model_types=("llama",), read=read, modules=DECODER)
