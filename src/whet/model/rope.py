"""Rotary positions (arXiv:2104.09864): channels of queries and keys turned by their position."""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from whet.model.architecture import Rope


def frequencies(rope: Rope, dim: int, length: int) -> Float[Tensor, "pairs"]:
    """Return the angle by which each pair of channels turns from token to token [radian].

    `length` is that of the sequence so far [token]: some stretches depend on it.
    """
    turned = int(dim * rope.fraction)
    steps = torch.arange(0, turned, 2).float() / turned
    if rope.kind == "dynamic":
        return 1.0 / (_grown(rope, turned, length) ** steps)
    plain = 1.0 / (rope.theta**steps)
    match rope.kind:
        case "linear":
            return plain / rope.factor
        case "llama3":
            return _banded(rope, plain)
        case "yarn":
            return _ramped(rope, plain, turned)
        case "longrope":
            factors = rope.long if length > rope.trained else rope.short
            return 1.0 / (torch.tensor(factors) * rope.theta**steps)
        case _:
            return plain


def _grown(rope: Rope, turned: int, length: int) -> float:
    """Return the base for a length beyond the trained one (dynamic NTK)."""
    stretch = rope.factor * max(length, rope.trained) / rope.trained - (rope.factor - 1)
    return rope.theta * stretch ** (turned / (turned - 2))


def _banded(rope: Rope, plain: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
    """Divide slow turns by the factor, keep fast ones, blend between (Llama 3.1)."""
    turns = rope.trained * plain / (2 * math.pi)  # over the trained context
    blend = ((turns - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return (1 - blend) * plain / rope.factor + blend * plain


def _ramped(rope: Rope, plain: Float[Tensor, "pairs"], turned: int) -> Float[Tensor, "pairs"]:
    """Blend interpolated and plain frequencies along a ramp (YaRN, arXiv:2309.00071, §3.2)."""

    def channel(rotations: float) -> float:
        ratio = rope.trained / (rotations * 2 * math.pi)
        return turned * math.log(ratio) / (2 * math.log(rope.theta))

    first, last = channel(rope.fast), channel(rope.slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, turned - 1)
    last = last + 0.001 if first == last else last
    ramp = ((torch.arange(turned // 2).float() - first) / (last - first)).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp)


class Rotary:
    """Turns queries and keys; remembers the angles of the positions it has met."""

    def __init__(self, rope: Rope, dim: int) -> None:
        self.rope, self.dim = rope, dim
        self._table: tuple[int, Tensor, Tensor] = (-1, torch.empty(0), torch.empty(0))

    def turn(
        self, x: Float[Tensor, "batch heads time dim"], start: int, length: int
    ) -> Float[Tensor, "batch heads time dim"]:
        """Return `x` with its channels turned: first token at `start`, of a sequence of `length`.

        Law: the product of a turned query and a turned key depends on their distance alone.
        """
        cos, sin = (part.to(x.device) for part in self._angles(start, start + x.shape[2], length))
        turned = cos.shape[-1]
        part = x[..., :turned]
        first, second = part.chunk(2, -1)
        part = part * cos + torch.cat((-second, first), -1) * sin
        return part if turned == x.shape[-1] else torch.cat((part, x[..., turned:]), -1)

    def _angles(self, start: int, stop: int, length: int) -> tuple[Tensor, Tensor]:
        regime, cos, sin = self._table
        if regime != self._regime(length) or len(cos) < stop:
            regime, cos, sin = self._table = self._made(length, max(stop, 2 * len(cos)))
        return cos[start:stop], sin[start:stop]

    def _regime(self, length: int) -> int:
        """Return a number that tells lengths apart where the frequencies depend on them."""
        if self.rope.kind == "dynamic":
            return max(length, self.rope.trained)
        return int(self.rope.kind == "longrope" and length > self.rope.trained)

    def _made(self, length: int, positions: int) -> tuple[int, Tensor, Tensor]:
        if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
            # Remembered angles must serve training as well.
            with torch.inference_mode(mode=False):
                return self._made(length, positions)
        steps = frequencies(self.rope, self.dim, length)
        angles = torch.arange(positions).float()[:, None] * steps
        angles = torch.cat((angles, angles), -1)
        gain = self.rope.gain
        return self._regime(length), angles.cos() * gain, angles.sin() * gain


@cache
def rotary(rope: Rope, dim: int) -> Rotary:
    """Return the one instance for these positions: blocks share its angles."""
    return Rotary(rope, dim)
