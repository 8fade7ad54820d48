"""Mixtral: Mistral with a mixture of experts in every block (arXiv:2401.04088)."""

from dataclasses import replace

from whet.model.architecture import Architecture, Experts
from whet.model.config import Config, decoder, rope, whole, window
from whet.model.family import Family
from whet.model.names import ATTENTION, ENDS, NORMS


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config)
    experts = Experts(
        count=whole(config, "num_local_experts", "num_experts", default=8),
        active=whole(config, "num_experts_per_tok", default=2),
        ffn=arch.ffn,
        layers=tuple(range(arch.layers)),
    )
    return replace(
        arch,
        rope=rope(config, theta=1e6),
        windows=(window(config, None),) * arch.layers,
        experts=experts,
    )


FAMILY = Family(
    name="mixtral",
    model_types=("mixtral",),
    read=read,
    modules=ENDS
    | ATTENTION
    | NORMS
    | {
        "mlp.router": "{p}layers.{i}.block_sparse_moe.gate",
        "mlp.experts.gate": "{p}layers.{i}.block_sparse_moe.experts.{e}.w1",
        "mlp.experts.up": "{p}layers.{i}.block_sparse_moe.experts.{e}.w3",
        "mlp.experts.down": "{p}layers.{i}.block_sparse_moe.experts.{e}.w2",
    },
    stacks={
        "{p}layers.{i}.mlp.experts.gate_up_proj": ("mlp.experts.gate", "mlp.experts.up"),
        "{p}layers.{i}.mlp.experts.down_proj": ("mlp.experts.down",),
    },
    stacked_router="{p}layers.{i}.mlp.gate",
)
