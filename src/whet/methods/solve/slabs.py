"""Outputs of a wide matrix, some at a time: what concerns each alone need not be held for all at once."""

NUMBERS = 1 << 24  # of a matrix, that are worked on at a time
BYTES = 8  # outputs whose zero points, packed, fill whole bytes


def slabs(outputs: int, inputs: int) -> list[slice]:
    """Return slices of outputs, by eights, with at most `NUMBERS` weights if there are not fewer than eight.

    Law: one slice at least, and planes that are written slice by slice follow each other.
    """
    size = max(1, NUMBERS // max(inputs, 1) // BYTES) * BYTES
    return [slice(first, first + size) for first in range(0, max(outputs, 1), size)]
