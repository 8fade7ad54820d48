"""StarCoder 2 (arXiv:2402.19173): layer norms, biases everywhere, an MLP without a gate."""

from dataclasses import replace

from whet.model.architecture import Architecture, Norm
from whet.model.config import Config, decoder, flag, nonlinearity, real, window
from whet.model.family import Family
from whet.model.names import ATTENTION as PROJECTIONS
from whet.model.names import ENDS, NORMS
from whet.model.roles import ATTENTION, MLP


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config)
    return replace(
        arch,
        norm=Norm("layer", real(config, "norm_epsilon", 1e-5)),
        windows=(window(config, None),) * arch.layers,
        activation=nonlinearity(config, "hidden_act", "gelu_pytorch_tanh"),
        gated=False,
        biases=ATTENTION | MLP if flag(config, "use_bias", default=True) else frozenset(),
        tied=flag(config, "tie_word_embeddings", default=True),
    )


FAMILY = Family(
    name="starcoder2",
    model_types=("starcoder2",),
    read=read,
    modules=ENDS
    | PROJECTIONS
    | NORMS
    | {
        "mlp.up": "{p}layers.{i}.mlp.c_fc",
        "mlp.down": "{p}layers.{i}.mlp.c_proj",
    },
)
