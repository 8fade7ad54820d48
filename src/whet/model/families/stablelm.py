"""StableLM 2 (arXiv:2402.17834): layer norms, and positions in a quarter of each head."""

from dataclasses import replace

from whet.model.architecture import Architecture, Norm
from whet.model.config import Config, decoder, flag, real, refuse, rope
from whet.model.family import Family
from whet.model.names import DECODER
from whet.model.roles import INTO


def read(config: Config) -> Architecture:
    """Read a config."""
    refuse(config, "use_parallel_residual", "attention and MLP that share a norm")
    refuse(config, "qk_layernorm", "a norm of its own for each head")
    return replace(
        decoder(config),
        norm=Norm("layer", real(config, "layer_norm_eps", 1e-5)),
        rope=rope(config, fraction=0.25),
        biases=INTO if flag(config, "use_qkv_bias") else frozenset[str](),
    )


FAMILY = Family(name="stablelm", model_types=("stablelm",), read=read, modules=DECODER)
