"""Outputs of a wide matrix, some at a time: what concerns each alone need not be held for all at once."""

NUMBERS = 1 << 24  # of a matrix, that are worked on at a time


def slabs(outputs: int, inputs: int) -> list[slice]:
    """Return slices of outputs with at most `NUMBERS` weights, or of single ones; one slice at least."""
    size = max(1, NUMBERS // max(inputs, 1))
    return [slice(first, first + size) for first in range(0, max(outputs, 1), size)]
