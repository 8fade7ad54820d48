"""Mistral 7B and its kin: Llama with a sliding window."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, decoder, window
from whet.model.family import Family
from whet.model.names import DECODER


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config)
    return replace(arch, windows=(window(config, 4096),) * arch.layers)


FAMILY = Family(name="mistral", model_types=("mistral",), read=read, modules=DECODER)
