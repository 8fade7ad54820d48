"""Blocks of the shipped demo model and of tiny random ones, with hidden states that enter them."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import HiddenStates, create_states
from whet.calibrate.statistics import Statistic, Stats
from whet.calibrate.sweep import observe
from whet.model import decoder
from whet.model.block import Block
from whet.model.family import find
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder

Observe = Callable[[str, tuple[type[Statistic], ...]], Stats]


def demo_block(layer: int = 0) -> Block:
    """Return a block of the demo."""
    source = Checkpoint(Folder(Path(str(resources.files("whet") / "data" / "demo"))))
    family = find(source.config)
    return decoder.block(source, family, family.architecture(source.config), layer)


def hidden(width: int, samples: int = 4, time: int = 48, seed: int = 0) -> Tensor:
    """Return hidden states with two large channels."""
    x = torch.randn(samples, time, width, generator=torch.Generator().manual_seed(seed))
    x[..., [1, width // 2]] *= 20
    return x


def spooled(path: Path, x: Tensor) -> HiddenStates:
    spool = create_states(path, (x.shape[0], x.shape[1], x.shape[2]))
    spool.write(0, x)
    return spool


def observing(block: Block, spool: HiddenStates) -> Observe:
    return lambda tap, kinds: observe(block, None, Carried(spool), None, tap, kinds, 2)


def recorded(block: Block, x: Tensor) -> dict[str, Tensor]:
    """Return what is announced at each tap, tokens by channels."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        block(x, tap=lambda name, value: seen.__setitem__(name, value.flatten(0, -2)))
    return seen
