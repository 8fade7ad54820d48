"""OLMo 3 (arXiv:2512.13961): OLMo 2 with a window in three blocks of four."""

from dataclasses import replace

from whet.model.architecture import Architecture
from whet.model.config import Config, rope, window, windows
from whet.model.families import olmo2
from whet.model.family import Family

THETA = 500_000.0


def read(config: Config) -> Architecture:
    """Read a config: positions are stretched in the blocks without a window."""
    arch = olmo2.read(config)
    sliding = tuple((i + 1) % 4 != 0 for i in range(arch.layers))
    near = {k: v for k, v in config.items() if k != "rope_scaling"}
    return replace(
        arch,
        windows=windows(config, window(config, 4096), sliding),
        rope=rope(config, theta=THETA, layer_type="full_attention"),
        local_rope=rope(near, theta=THETA, layer_type="sliding_attention"),
    )


FAMILY = Family(name="olmo3", model_types=("olmo3",), read=read, modules=olmo2.FAMILY.modules)
