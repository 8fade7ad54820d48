"""Grouped queries: several key-value heads become one, their mean (arXiv:2305.13245, §2.1)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from whet.model import fields
from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.model.roles import KEY
from whet.model.site import Site
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Gqa(ModelPass):
    """Let neighbouring query heads share keys and values, by the mean of those that they had.

    The cache shrinks with the heads; what it costs is for training to win back.
    Source: arXiv:2305.13245, §2.1.
    Law: heads that are equal already lose nothing.
    """

    name: ClassVar[str] = "gqa"

    heads: int = field(metadata=says("key-value heads that each block is to have [1]"))

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        family = find(config)
        has = family.architecture(config).kv_heads
        if fields.field(family.name, "kv_heads") is None:
            return f"in {family.name}, every query head has keys and values of its own"
        if not 0 < self.heads < has or has % self.heads:
            return f"{has} key-value heads cannot be shared out to {self.heads}: take a divisor"
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        width = family.architecture(config).head_dim
        return fields.resized(config, family.name, kv_heads=self.heads, head_dim=width)

    def run(self, task: Task) -> Outcome:
        """Return the model with shared keys and values."""
        return Outcome(self._tensors(task))

    def _tensors(self, task: Task) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        for layer in range(cutting.old.layers):
            task.heed(layer / cutting.old.layers, f"block {layer + 1}")
            yield from cutting.block(layer, self._pooled(cutting, layer))

    def _pooled(self, cutting: Cutting, layer: int) -> Piece:
        arch, source = cutting.old, cutting.source
        weights: dict[str, Tensor] = {}
        biases: dict[str, Tensor] = {}
        gains: dict[str, Tensor] = {}
        for site in cutting.family.block_sites(arch, layer):
            if KEY in site.out.split("+"):
                weights[site.role] = self._shared(source.weight(site).dense(), arch, site)
                if site.bias:
                    bias = source.tensor(f"{site.module}.bias").float()
                    biases[site.role] = self._shared(bias, arch, site)
        if arch.qk_norm == "full":
            name = cutting.family.module(arch, "attn.k.norm", layer)
            gains["attn.k.norm"] = self._mean(source.tensor(f"{name}.weight").float(), arch)
        every = arch.kv_heads // self.heads
        first = torch.arange(0, arch.kv_heads, every)
        kept = (first[:, None] * arch.head_dim + torch.arange(arch.head_dim)).flatten()
        return Piece(layer, {KEY: kept}, weights, biases, gains)

    def _shared(self, value: Tensor, arch: Architecture, site: Site) -> Tensor:
        """Return rows of which those of keys and values are means, at the first head of each."""
        rows = arch.kv_heads * arch.head_dim
        if site.out == KEY:
            return self._mean(value, arch)
        query, *others = value.split([len(value) - 2 * rows, rows, rows])
        return torch.cat([query, *(self._mean(part, arch) for part in others)])

    def _mean(self, value: Tensor, arch: Architecture) -> Tensor:
        apart = value.unflatten(0, (self.heads, -1, arch.head_dim))
        return apart.mean(1, keepdim=True).expand_as(apart).flatten(0, 2)
