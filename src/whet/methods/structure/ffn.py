"""A narrower feed-forward layer: the least needed channels of each block go, the rest is refitted.

Chosen as ZipLM does (arXiv:2302.04089, §3), and refitted as MoDeGPT does (arXiv:2408.09632, §3.2).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from whet.calibrate.walk import Stop
from whet.methods.solve.narrowing import Facts, Narrowing
from whet.model import uneven
from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.model.cut import Piece
from whet.model.family import find
from whet.model.fields import resized
from whet.passes.linear_pass import says


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn(Narrowing):
    """Remove channels of every feed-forward layer; the other weights make up for them.

    The channels of least cost go: a share of every block's, so that the result is a plain smaller
    model, or down to a number of its own for each block. The widths of blocks are then told by
    `config.json`, and other programs read the model once whet is imported.
    """

    name: ClassVar[str] = "ffn"

    share: float = field(default=0.25, metadata=says("of the channels to remove [1]"))
    multiple: int = field(default=32, metadata=says("channels are left in multiples of this [1]"))
    channels: tuple[int, ...] = field(
        default=(), metadata=says("left in each block, one number a block, instead of a share [1]")
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.share < 1 or self.multiple < 1:
            raise ValueError("share must be between 0 and 1, multiple at least 1")
        if any(count < 1 for count in self.channels):
            raise ValueError(f"channels is {list(self.channels)}, expected 1 or more of each block")

    def left(self, channels: int) -> int:
        """Return how many channels stay: the nearest multiple, at least one of them."""
        wanted = channels * (1 - self.share)
        return max(1, round(wanted / self.multiple)) * self.multiple

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        arch = find(config).architecture(config)
        if self.channels:
            return self._misfit(arch)
        for channels in {*_widths(arch).values(), *arch.ffns}:
            if self.left(channels) >= channels:
                return (
                    f"of {channels} channels {self.share:.0%} are to go, and "
                    f"{self.multiple} at a time leaves {self.left(channels)}; take another multiple"
                )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        arch = family.architecture(config)
        widths = {name: self.left(count) for name, count in _widths(arch).items()}
        changed = {name: value for name, value in config.items() if name != uneven.KEY}
        if self.channels or arch.ffns:
            left = [self._left_of(arch.ffn_of(i), i) for i in range(arch.layers)]
            widths, changed = {"ffn": max(left)}, changed | uneven.told(left)
        return resized(changed, family.name, **widths)

    def cut(self, stop: Stop, facts: Facts) -> Piece:
        """Choose the channels of a block, and refit its last linears."""
        kept: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for site in stop.block.sites:
            if not site.role.endswith(".down"):
                continue
            cost = _makers(stop, site.role.removesuffix("down"))
            keep = self._left_of(site.shape[1], stop.layer)
            done = self.removed(stop, site, keep, cost, "channels", facts)
            prefix = site.role.removeprefix("mlp.").removesuffix("down")
            kept[f"{prefix}ffn"] = done.kept
            weights[site.role] = done.weight
        return Piece(stop.layer, kept, weights)

    def _left_of(self, channels: int, layer: int) -> int:
        """Return how many channels of a block stay."""
        return self.channels[layer] if self.channels else self.left(channels)

    def _misfit(self, arch: Architecture) -> str | None:
        """Return why a model's blocks cannot be left with these channels."""
        if arch.experts is not None:
            return "experts of all blocks have one width; give a share instead of channels"
        if len(self.channels) != arch.layers:
            return f"it has {arch.layers} blocks, and channels has {len(self.channels)} numbers"
        widths = [arch.ffn_of(layer) for layer in range(arch.layers)]
        pairs = list(zip(self.channels, widths, strict=True))
        if wide := [layer for layer, (left, had) in enumerate(pairs) if left > had]:
            return f"block {wide[0]} has {widths[wide[0]]} channels, fewer than are to stay"
        return None if any(left < had for left, had in pairs) else "no channel would go"


def _widths(arch: Architecture) -> dict[str, int]:
    """Return the channels of feed-forward layers, by what `fields` calls them."""
    found = {"ffn": arch.ffn}
    if arch.experts is not None:
        dense = len(arch.experts.layers) < arch.layers
        found = ({"ffn": arch.ffn} if dense else {}) | {"expert_ffn": arch.experts.ffn}
    return found


def _makers(stop: Stop, prefix: str) -> Tensor:
    """Return the squares of the rows that make each channel."""
    total = torch.zeros(stop.block.linears[f"{prefix}down"].shape[1])
    for name in ("gate", "up", "gate_up"):
        linear = stop.block.linears.get(f"{prefix}{name}")
        if linear is not None:
            total += linear.weight.dense().square().sum(1).view(-1, len(total)).sum(0)
    return total
