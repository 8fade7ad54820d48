"""Fewer attention heads: key-value heads go with the query heads that read them.

Chosen and refitted as ZipLM does (arXiv:2302.04089, §3).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from whet.calibrate.walk import Stop
from whet.methods.solve.narrowing import Facts, Narrowing
from whet.model import fields
from whet.model.axes import positions, sizes
from whet.model.config import Config
from whet.model.cut import Piece
from whet.model.family import find
from whet.passes.linear_pass import says


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads(Narrowing):
    """Keep some key-value heads of each block, with the query heads that read them.

    Heads stay whole, so their rotary pairs do too; as many stay in every block. The output
    projection is refitted to what is left.
    """

    name: ClassVar[str] = "heads"

    keep: int = field(metadata=says("key-value heads that stay in each block [1]"))

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        family = find(config)
        arch = family.architecture(config)
        heads = arch.kv_heads
        if fields.field(family.name, "head_dim") is None:
            return f"in {family.name}, heads share out all channels, so none can be left out"
        if not 0 < self.keep < heads:
            return f"it has {heads} key-value heads, so 1 to {heads - 1} can stay, not {self.keep}"
        odd = family.name in fields.WHOLE_HEADS and arch.hidden % (self.keep * arch.group)
        if odd and (family.name != "llama" or arch.biases):
            return (
                f"transformers wants its {arch.hidden} channels to be a multiple of the heads, "
                f"and {self.keep * arch.group} would stay"
            )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        arch = family.architecture(config)
        heads = self.keep * arch.group
        if family.name == "llama" and arch.hidden % heads:
            config = fields.as_mistral(config, None)  # the same model, and any number of heads
        return fields.resized(
            config, family.name, heads=heads, kv_heads=self.keep, head_dim=arch.head_dim
        )

    def cut(self, stop: Stop, facts: Facts) -> Piece:
        """Choose the heads of a block, and refit its output projection."""
        arch = stop.block.arch
        site = next(s for s in stop.block.sites if s.role == "attn.o")
        size = arch.group * arch.head_dim
        cost, what = _makers(stop), "key-value heads"
        done = self.removed(stop, site, self.keep, cost, what, facts, size)
        return Piece(stop.layer, {"kv": done.kept}, {"attn.o": done.weight})


def _makers(stop: Stop) -> Tensor:
    """Return the squares of the rows that make each key-value head and its queries."""
    arch = stop.block.arch
    total = torch.zeros(arch.kv_heads)
    for site in stop.block.sites:
        if site.tap == "attn.in":
            rows = stop.block.linears[site.role].weight.dense().square().sum(1)
            for head in range(arch.kv_heads):
                own = positions(site.out, sizes(arch, arch.ffn), {"kv": torch.tensor([head])})
                assert own is not None
                total[head] += rows[own].sum()
    return total
