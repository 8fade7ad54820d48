"""A narrower feed-forward layer: the least needed channels of each block go, the rest is refitted.

Chosen as ZipLM does (arXiv:2302.04089, §3), and refitted as MoDeGPT does (arXiv:2408.09632, §3.2).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from whet.calibrate.walk import Stop
from whet.methods.solve.narrowing import Facts, Narrowing
from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.model.cut import Piece
from whet.model.family import find
from whet.model.fields import resized
from whet.passes.linear_pass import says


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn(Narrowing):
    """Remove a share of the channels of every feed-forward layer; the other weights make up for them.

    The channels of least cost go, as many in every block, so the result is a plain smaller model.
    """

    name: ClassVar[str] = "ffn"

    share: float = field(default=0.25, metadata=says("of the channels to remove [1]"))
    multiple: int = field(default=32, metadata=says("channels are left in multiples of this [1]"))

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.share < 1 or self.multiple < 1:
            raise ValueError("share must be between 0 and 1, multiple at least 1")

    def left(self, channels: int) -> int:
        """Return how many channels stay: the nearest multiple, at least one of them."""
        wanted = channels * (1 - self.share)
        return max(1, round(wanted / self.multiple)) * self.multiple

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        for channels in set(_widths(find(config).architecture(config)).values()):
            if self.left(channels) >= channels:
                return (
                    f"of {channels} channels {self.share:.0%} are to go, and "
                    f"{self.multiple} at a time leaves {self.left(channels)}; take another multiple"
                )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        widths = _widths(family.architecture(config))
        return resized(config, family.name, **{k: self.left(n) for k, n in widths.items()})

    def cut(self, stop: Stop, facts: Facts) -> Piece:
        """Choose the channels of a block, and refit its last linears."""
        kept: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for site in stop.block.sites:
            if not site.role.endswith(".down"):
                continue
            cost = _makers(stop, site.role.removesuffix("down"))
            done = self.removed(stop, site, self.left(site.shape[1]), cost, "channels", facts)
            prefix = site.role.removeprefix("mlp.").removesuffix("down")
            kept[f"{prefix}ffn"] = done.kept
            weights[site.role] = done.weight
        return Piece(stop.layer, kept, weights)


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
