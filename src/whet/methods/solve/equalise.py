"""Rescaling the channels of a tap: who reads it, and what may be folded where."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whet.model.block import Block
from whet.model.fold import foldable
from whet.model.site import Site


@dataclass(frozen=True, slots=True, eq=False)
class Readers:
    """A tap whose channels can be rescaled together, and the chosen linears that read it.

    `refusal` says why they cannot be.
    """

    tap: str
    sites: tuple[Site, ...]
    refusal: str | None

    def weights(self, block: Block) -> Float[Tensor, "out in"]:
        """Return the weights of all readers, one below the other."""
        return torch.cat([block.linears[site.role].weight.dense() for site in self.sites])


def readers(block: Block, roles: tuple[str, ...]) -> Iterator[Readers]:
    """Yield the taps that linears of `roles` read; experts read "mlp.in" together."""
    chosen: dict[str, list[Site]] = {}
    for site in block.sites:
        if site.role in roles:
            joint = ".experts." in site.tap and site.tap.endswith(".in")
            chosen.setdefault("mlp.in" if joint else site.tap, []).append(site)
    for tap, sites in chosen.items():
        yield Readers(tap, tuple(sites), foldable(block, tap))


def as_folded(block: Block, tap: str, scale: Float[Tensor, "in"]) -> Float[Tensor, "in"]:
    """Return the scale that a fold will use: heads that share their values share it."""
    if tap != "attn.out":
        return scale
    arch = block.arch
    heads = scale.view(arch.kv_heads, arch.group, arch.head_dim).log().mean(1, keepdim=True).exp()
    return heads.expand(-1, arch.group, -1).flatten()
