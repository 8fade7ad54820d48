"""Qwen 1.5, 2 and 2.5: biases on queries, keys and values; upper blocks may have a window."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, decoder, upper_windows
from whet.model.family import Family
from whet.model.names import DECODER
from whet.model.roles import INTO


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config)
    return replace(arch, biases=INTO, windows=upper_windows(config, arch.layers))


FAMILY = Family(name="qwen2", model_types=("qwen2",), read=read, modules=DECODER)
