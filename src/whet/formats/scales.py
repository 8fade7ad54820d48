"""How scales are stored: rounding to the stored type, and to its plane and back.

    bf16, f16, f32   rounded to nearest, kept off zero and infinity; the sign is free
    e8m0             a power of two, the nearest in value; stored as exponent + 127
    e4m3             a float8 number times one power of two for the matrix (plane `global`)

A scale is never zero: what is smaller than the smallest number of the type becomes that number.

Source: OCP Microscaling Formats 1.0, section 5.4 (e8m0). The global scale of e4m3 is a power of
two, so that it and its reciprocal (which other readers store) are both exact.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats.spec import ScaleType

Extra = Mapping[str, Tensor]

_LIMITS = {
    "bf16": (2.0**-126, torch.finfo(torch.bfloat16).max),
    "f16": (2.0**-24, torch.finfo(torch.float16).max),
    "f32": (2.0**-126, torch.finfo(torch.float32).max),
    "e8m0": (2.0**-126, 2.0**127),
    "e4m3": (2.0**-9, 448.0),
}
_DTYPES = {
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
    "e4m3": torch.float8_e4m3fn,
}


def signed(kind: ScaleType) -> bool:
    """Return whether scales of this type may be negative."""
    return kind not in ("e8m0", "e4m3")


def stored(
    kind: ScaleType, scale: Float[Tensor, "..."], whole: Tensor | None = None
) -> Float[Tensor, "..."]:
    """Round scales to their stored type; `whole` is the global scale of e4m3.

    Law: a projection. Law: no result is zero or infinite.
    """
    low, high = _LIMITS[kind]
    if kind == "e4m3":
        assert whole is not None
        return stored_float(scale.abs() / whole, low, high, torch.float8_e4m3fn) * whole
    if kind == "e8m0":  # half a mantissa carries into the exponent
        magnitude = scale.abs().clamp(low, high)
        return ((magnitude.view(torch.int32) + 0x400000) & 0x7F800000).view(torch.float32)
    return stored_float(scale, low, high, _DTYPES[kind])


def stored_float(
    scale: Float[Tensor, "..."], low: float, high: float, dtype: torch.dtype
) -> Float[Tensor, "..."]:
    """Round to a float type, magnitudes kept within its positive range."""
    magnitude = scale.abs().clamp(low, high).to(dtype).float().clamp(min=low)
    return torch.where(scale < 0, -magnitude, magnitude)


def global_scale(weight: Float[Tensor, "out in"], top: float) -> Float[Tensor, "1"]:
    """Return the least power of two under which the scales `amax / top` of e4m3 do not overflow."""
    low, high = weight.aminmax()
    widest = torch.maximum(-low, high).double() / (top * 448.0)
    exponent = torch.log2(widest.clamp(min=2.0**-110)).ceil().clamp(-110, 110)
    return torch.exp2(exponent).float().reshape(1)


def to_plane(kind: ScaleType, scale: Float[Tensor, "rows groups"], extra: Extra) -> Tensor:
    """Return scales, rounded already, in their stored type."""
    if kind == "e8m0":
        return ((scale.contiguous().view(torch.int32) >> 23) & 255).to(torch.uint8)
    if kind == "e4m3":
        return (scale / extra["global"]).to(torch.float8_e4m3fn)
    return scale.to(_DTYPES[kind]).contiguous()


def from_plane(kind: ScaleType, plane: Tensor, extra: Extra) -> Float[Tensor, "rows groups"]:
    """Undo `to_plane`."""
    if kind == "e8m0":
        power = (plane.to(torch.int32) << 23).view(torch.float32)
        return power.masked_fill(plane == 0, 2.0**-127)
    if kind == "e4m3":
        return plane.float() * extra["global"]
    return plane.float()
