"""Sums over the weights that share a scale, and what is shared given back to each of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats.spec import Coded


def sums(x: Float[Tensor, "out in"], coded: Coded) -> Float[Tensor, "#out groups"]:
    """Return the sum over each group of a format; over all where the whole matrix is one group."""
    size = max(coded.group(x.shape[1]), 1)
    filled = torch.nn.functional.pad(x, (0, -x.shape[1] % size))
    total = filled.unflatten(1, (-1, size)).sum(2)
    return total.sum(0, keepdim=True) if coded.grouping == "tensor" else total


def spread(
    of_groups: Float[Tensor, "#out groups"], inputs: int, coded: Coded
) -> Float[Tensor, "#out in"]:
    """Return for each input what belongs to its group."""
    return of_groups[:, torch.arange(inputs) // max(coded.group(inputs), 1)]
