"""Quantized activations: the codes of a tensor of hidden values, and what they stand for.

Scales are those of compressed-tensors (the width of the range over that of the codes), so that its
readers see the same numbers. It knows none of 16 bits: these end at what two codes of 8 reach.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet.formats.activation import Activation

FLOAT8_TOP = 448.0
INT16_TOP = 127 * 256 + 127


def quantized(
    x: Float[Tensor, "*batch in"], activation: Activation, scale: Tensor | None = None
) -> Float[Tensor, "*batch in"]:
    """Return what the codes of `x` stand for, in its type; `scale` is what `static_scale` gave.

    Law: equal to `scale * (codes - zero)` of `coded`.
    """
    blocks = _blocks(x.float(), activation)
    step, zero = _range(blocks, activation, scale)
    if activation.element == "fp8-e4m3":
        rounded = (blocks / step).clamp_(-FLOAT8_TOP, FLOAT8_TOP).to(torch.float8_e4m3fn).float()
    else:
        rounded = _rounded(blocks, step, zero, activation)
        rounded = rounded if zero is None else rounded - zero
    return rounded.mul_(step).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]].to(x.dtype)


def coded(
    x: Float[Tensor, "*batch in"], activation: Activation, scale: Tensor | None = None
) -> tuple[Int[Tensor, "*batch groups size"], Tensor, Tensor | None]:
    """Return the integer codes, cut into what shares a scale, with their scales and zero points.

    The last group is filled up with codes of zero. Not for float elements, which have no integers.
    """
    assert activation.element != "fp8-e4m3"
    blocks = _blocks(x.float(), activation)
    step, zero = _range(blocks, activation, scale)
    kind = torch.int16 if activation.element == "int16" else torch.int8
    return _rounded(blocks, step, zero, activation).to(kind), step, zero


def static_scale(
    activation: Activation, low: Float[Tensor, ""], high: Float[Tensor, ""]
) -> Float[Tensor, "numbers"]:
    """Return the fixed scale, and after it the zero point of an affine format, for a range."""
    step, zero = _step(low.float().reshape(1), high.float().reshape(1), activation)
    return step if zero is None else torch.cat([step, zero])


def _blocks(x: Float[Tensor, "*batch in"], activation: Activation) -> Tensor:
    """Return the values with what shares a scale along the last axis."""
    size = activation.group or max(x.shape[-1], 1)
    filled = torch.nn.functional.pad(x, (0, -x.shape[-1] % size))
    return filled.reshape(*x.shape[:-1], -1, size)


def _range(
    blocks: Float[Tensor, "*batch groups size"], activation: Activation, scale: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return scales and zero points that broadcast against the values."""
    if activation.static:
        assert scale is not None, "a static activation needs its scale"
        zero = scale[1].reshape(1) if activation.affine else None
        return scale[0].float().reshape(1), zero
    if activation.strategy == "tensor":
        low, high = blocks.aminmax()
    else:
        low, high = blocks.aminmax(dim=-1, keepdim=True)
    return _step(low, high, activation)


def _step(
    low: Float[Tensor, "..."], high: Float[Tensor, "..."], activation: Activation
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."] | None]:
    """Return scales, and zero points on the signed codes, of ranges that contain zero."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    least = torch.finfo(torch.float32).eps  # stands in for the scale of zeros
    if activation.element == "fp8-e4m3":
        step = torch.maximum(-low, high) / FLOAT8_TOP
        return torch.where(step == 0, least, step), None
    least_code, most_code = _ends(activation)
    width = most_code - least_code
    if not activation.affine:
        step = torch.maximum(-low, high) / (width / 2)
        return torch.where(step == 0, least, step), None
    step = (high - low) / width
    step = torch.where(step == 0, least, step)
    return step, (least_code - low / step).clamp(least_code, most_code).round()


def _ends(activation: Activation) -> tuple[int, int]:
    """Return the least code and the greatest."""
    if activation.element == "int16":
        return -INT16_TOP, INT16_TOP
    half = 2 ** (activation.bits - 1)
    return -half, half - 1


def _rounded(
    blocks: Tensor, step: Tensor, zero: Tensor | None, activation: Activation
) -> Float[Tensor, "*batch groups size"]:
    """Return signed integer codes, as floats."""
    ratio = blocks / step
    return (ratio if zero is None else ratio.add_(zero)).clamp_(*_ends(activation)).round_()
