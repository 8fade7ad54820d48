"""Gemma 3, text only (arXiv:2503.19786): windows in most blocks, with positions of their own."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, cap, real, rope, whole, window, windows
from whet.model.families.gemma2 import MODULES, gemma
from whet.model.family import Family
from whet.model.names import QK_NORMS


def read(config: Config) -> Architecture:
    """Read a config."""
    arch = gemma({k: v for k, v in config.items() if k != "rope_parameters"})  # read below
    pattern = whole(config, "sliding_window_pattern", "_sliding_window_pattern", default=6)
    sliding = tuple((i + 1) % pattern != 0 for i in range(arch.layers))
    local = real(config, "rope_local_base_freq", 10_000.0)
    return replace(
        arch,
        qk_norm="head",
        windows=windows(config, window(config, 4096), sliding),
        rope=rope(config, theta=1e6, layer_type="full_attention"),
        local_rope=rope(_local(config), theta=local, layer_type="sliding_attention"),
        attention_cap=cap(config, "attn_logit_softcapping"),
        logit_cap=cap(config, "final_logit_softcapping"),
    )


def _local(config: Config) -> Config:
    """Return a config without `rope_theta` and `rope_scaling`, which are for the other blocks."""
    return {k: v for k, v in config.items() if k not in ("rope_theta", "rope_scaling")}


FAMILY = Family(name="gemma3", model_types=("gemma3_text",), read=read, modules=MODULES | QK_NORMS)
