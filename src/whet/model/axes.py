"""Where the indices of a named axis lie along a stored dimension.

"(kv group dim)" is one dimension made of three axes, the first outermost; `a+b` are laid end to end.
"""

from collections.abc import Mapping
from math import prod

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.model.architecture import Architecture

Kept = Mapping[str, Int64[Tensor, "kept"]]  # axis, or all of a term -> the indices that stay


def sizes(arch: Architecture, ffn: int) -> dict[str, int]:
    """Return the extent of each axis; `ffn` is that of the linear asked about."""
    return {
        "hidden": arch.hidden,
        "ffn": ffn,
        "vocab": arch.vocab,
        "kv": arch.kv_heads,
        "group": arch.group,
        "dim": arch.head_dim,
        "3": 3,
    }


def positions(
    axis: str, extents: Mapping[str, int], kept: Kept
) -> Int64[Tensor, "positions"] | None:
    """Return which positions along a dimension stay, in order; `None` if all do.

    Law: with nothing but whole axes kept, these are all positions.
    """
    parts: list[Tensor] = []
    start, touched = 0, False
    for term in axis.split("+"):
        names = term.strip("()").split(" ")
        shape = [extents[name] for name in names]
        found = torch.arange(prod(shape)).view(shape)
        for place, name in enumerate(names):
            if name in kept:
                found, touched = found.index_select(place, kept[name]), True
        if term in kept:
            found, touched = kept[term], True
        parts.append(start + found.flatten())
        start += prod(shape)
    return torch.cat(parts) if touched else None


def selected(value: Tensor, dim: int, where: Tensor | None) -> Tensor:
    """Return a tensor with only some positions along a dimension."""
    return value if where is None else value.index_select(dim, where)
