"""Qwen 3: queries and keys are normalised head by head."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, decoder, flag, upper_windows
from whet.model.family import Family
from whet.model.names import DECODER, QK_NORMS
from whet.model.roles import ATTENTION


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config, head_dim=128)
    return replace(
        arch,
        qk_norm="head",
        biases=ATTENTION if flag(config, "attention_bias") else frozenset[str](),
        windows=upper_windows(config, arch.layers),
    )


FAMILY = Family(name="qwen3", model_types=("qwen3",), read=read, modules=DECODER | QK_NORMS)
