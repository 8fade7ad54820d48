"""The angles of rotary positions by numpy: `whet.model.rope.frequencies` without torch."""

import math

import numpy as np
from numpy.typing import NDArray

from whet.model.architecture import Rope

Angles = NDArray[np.float32]
ONE, PI = np.float32(1), 2 * math.pi


def frequencies(rope: Rope, dim: int, length: int) -> Angles:
    """Return the angle by which each pair of channels turns from token to token [radian].

    `length` is that of the sequence so far [token]: some stretches depend on it.
    Law: equal to `whet.model.rope.frequencies` within two units in the last place.
    """
    turned = int(dim * rope.fraction)
    steps = np.arange(0, turned, 2, dtype=np.float32) / np.float32(turned)
    if rope.kind == "dynamic":
        return ONE / _powers(_grown(rope, turned, length), steps)
    plain = ONE / _powers(rope.theta, steps)
    match rope.kind:
        case "linear":
            return (plain / np.float32(rope.factor)).astype(np.float32)
        case "llama3":
            return _banded(rope, plain)
        case "yarn":
            return _ramped(rope, plain, turned)
        case "longrope":
            factors = rope.long if length > rope.trained else rope.short
            return ONE / (np.asarray(factors, np.float32) * _powers(rope.theta, steps))
        case _:
            return plain


def regime(rope: Rope, length: int) -> int:
    """Return a number that tells lengths apart where the frequencies depend on them."""
    if rope.kind == "dynamic":
        return max(length, rope.trained)
    return int(rope.kind == "longrope" and length > rope.trained)


def _powers(base: float, steps: Angles) -> Angles:
    return np.power(np.float64(np.float32(base)), steps.astype(np.float64)).astype(np.float32)


def _grown(rope: Rope, turned: int, length: int) -> float:
    """Return the base for a length beyond the trained one (dynamic NTK)."""
    stretch = rope.factor * max(length, rope.trained) / rope.trained - (rope.factor - 1)
    return rope.theta * stretch ** (turned / (turned - 2))


def _banded(rope: Rope, plain: Angles) -> Angles:
    """Divide slow turns by the factor, keep fast ones, blend between (Llama 3.1)."""
    turns = np.float32(rope.trained) * plain / np.float32(PI)
    low, width = np.float32(rope.low), np.float32(rope.high - rope.low)
    blend = np.clip((turns - low) / width, 0, 1).astype(np.float32)
    mixed = (ONE - blend) * plain / np.float32(rope.factor) + blend * plain
    return mixed.astype(np.float32)


def _ramped(rope: Rope, plain: Angles, turned: int) -> Angles:
    """Blend interpolated and plain frequencies along a ramp (YaRN, arXiv:2309.00071, §3.2)."""

    def channel(rotations: float) -> float:
        return turned * math.log(rope.trained / (rotations * PI)) / (2 * math.log(rope.theta))

    first, last = channel(rope.fast), channel(rope.slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, turned - 1)
    last = last + 0.001 if first == last else last
    places = np.arange(turned // 2, dtype=np.float32)
    ramp = np.clip((places - np.float32(first)) / np.float32(last - first), 0, 1)
    ramp = ramp.astype(np.float32)
    mixed = plain / np.float32(rope.factor) * ramp + plain * (ONE - ramp)
    return mixed.astype(np.float32)
