"""Qwen 3 with a mixture of experts in some blocks."""

from collections.abc import Iterator
from dataclasses import replace

from whet.model.architecture import Architecture, Experts
from whet.model.config import Config, decoder, flag, listed, whole, window
from whet.model.family import Family
from whet.model.names import DECODER, QK_NORMS
from whet.model.roles import ATTENTION


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = decoder(config)
    sliding = window(config, 4096) if flag(config, "use_sliding_window") else None
    experts = Experts(
        count=whole(config, "num_experts", "num_local_experts"),
        active=whole(config, "num_experts_per_tok", default=8),
        ffn=whole(config, "moe_intermediate_size"),
        layers=tuple(_sparse(config, arch.layers)),
        normalize=flag(config, "norm_topk_prob"),
    )
    return replace(
        arch,
        qk_norm="head",
        biases=ATTENTION if flag(config, "attention_bias") else frozenset[str](),
        windows=(sliding,) * arch.layers,
        experts=experts if experts.layers else None,
    )


def _sparse(config: Config, layers: int) -> Iterator[int]:
    step = whole(config, "decoder_sparse_step", default=1)
    dense = listed(config, "mlp_only_layers", int) or ()
    return (i for i in range(layers) if i not in dense and (i + 1) % step == 0)


FAMILY = Family(
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    read=read,
    modules=DECODER
    | QK_NORMS
    | {
        "mlp.router": "{p}layers.{i}.mlp.gate",
        "mlp.experts.gate": "{p}layers.{i}.mlp.experts.{e}.gate_proj",
        "mlp.experts.up": "{p}layers.{i}.mlp.experts.{e}.up_proj",
        "mlp.experts.down": "{p}layers.{i}.mlp.experts.{e}.down_proj",
    },
    stacks={
        "{p}layers.{i}.mlp.experts.gate_up_proj": ("mlp.experts.gate", "mlp.experts.up"),
        "{p}layers.{i}.mlp.experts.down_proj": ("mlp.experts.down",),
    },
    stacked_router="{p}layers.{i}.mlp.gate",
)
