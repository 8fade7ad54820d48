"""Outputs of a wide matrix, some at a time: what concerns each alone need not be held for all at once."""

from jaxtyping import Float
from torch import Tensor

NUMBERS = 1 << 24  # of a matrix, that are worked on at a time
BYTES = 8  # outputs whose zero points, packed, fill whole bytes


def slabs(outputs: int, inputs: int) -> list[slice]:
    """Return slices of outputs, by eights, with at most `NUMBERS` weights if there are not fewer than eight.

    Law: one slice at least, and planes that are written slice by slice follow each other.
    """
    size = max(1, NUMBERS // max(inputs, 1) // BYTES) * BYTES
    return [slice(first, first + size) for first in range(0, max(outputs, 1), size)]


def inner(one: Float[Tensor, "out in"], other: Float[Tensor, "out in"]) -> float:
    """Return the sum of the products of their numbers, in double precision.

    Law: that of the whole matrices.
    """
    parts = slabs(one.shape[0], one.shape[1])
    return sum(float((one[rows].double() * other[rows].double()).sum()) for rows in parts)
