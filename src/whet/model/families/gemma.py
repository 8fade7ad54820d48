"""Gemma 1 (arXiv:2403.08295): Llama with scaled embeddings and gains counted from one."""

from dataclasses import replace

from whet.model.architecture import PRE, Architecture
from whet.model.config import Config, nonlinearity
from whet.model.families.gemma2 import gemma
from whet.model.family import Family
from whet.model.names import DECODER


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = gemma(config)
    return replace(
        arch,
        norms=PRE,
        activation=nonlinearity(config, "hidden_act", "gelu_pytorch_tanh"),
        attention_scale=arch.head_dim**-0.5,
    )


FAMILY = Family(name="gemma", model_types=("gemma",), read=read, modules=DECODER)
