"""The block types of GGUF, and the formats of whet that hold exactly the same numbers.

A block is `size` numbers of a row in `nbytes`. What it means is `scale · (code − offset)`, or
`scale · code + constant`; the two-level scales of the K-types are multiplied out, which float32 does
exactly. A constant is the minimum of a group. Read from ggml's `ggml-common.h` and gguf 0.19,
`quants.py`.

Law: the planes decode to what `gguf.dequantize` gives, bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.store.gguf import lattices as iq
from whet.store.gguf.fields import Raw, Singles
from whet.store.gguf.fields import above as _above
from whet.store.gguf.fields import field as _field
from whet.store.gguf.fields import half as _half
from whet.store.gguf.fields import nibbles as _nibbles
from whet.store.gguf.fields import parts as _parts
from whet.store.gguf.fields import single as _single

PLAIN = {"F32": 4, "F16": 2, "BF16": 2}
NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of blocks, the format that holds them, and what takes them apart.

    `codes`: (blocks, size); `scale` and `constant`: one for each block and group. `levels` are what
    codes stand for where they are no integers, `zero` is what stands for 0 where that is not in the
    middle.
    """

    name: str
    size: int
    nbytes: int
    format: str
    codes: Callable[[Raw], Raw] | None = None
    scale: Callable[[Raw], NDArray[Any]] | None = None
    constant: Callable[[Raw], NDArray[Any]] | None = None
    levels: tuple[float | int, ...] = ()
    zero: int = 0

    @property
    def plain(self) -> bool:
        """Whether it holds plain numbers."""
        return self.name in PLAIN


def _fifth(raw: Raw, start: int) -> Raw:
    """Return the fifth bits of 32 codes, in place."""
    words = np.ascontiguousarray(raw[:, start : start + 4]).view("<u4")
    return (((words >> np.arange(32, dtype=np.uint32)) & 1) << 4).astype(np.uint8)


def _k4(raw: Raw) -> tuple[Raw, Raw]:
    """Return the eight 6-bit scales and minima of a block of Q4_K or Q5_K."""
    low, middle, high = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scales = [_field(low, 0, 6), _above(_field(high, 0, 4), _field(low, 6, 2), 4)]
    minima = [_field(middle, 0, 6), _above(_field(high, 4, 4), _field(middle, 6, 2), 4)]
    return np.concatenate(scales, axis=1), np.concatenate(minima, axis=1)


def _k4_scale(raw: Raw) -> Singles:
    return _single(raw, 0) * _k4(raw)[0].astype(np.float32)


def _k4_constant(raw: Raw) -> Singles:
    return -(_single(raw, 2) * _k4(raw)[1].astype(np.float32))


def _q3_scale(raw: Raw) -> Singles:
    high = np.concatenate([_field(raw[:, 104:108], start, 2) for start in (0, 2, 4, 6)], axis=1)
    whole = _above(_nibbles(raw[:, 96:104]), high, 4)
    return _single(raw, 108) * (whole.astype(np.float32) - 32)


def _q3_codes(raw: Raw) -> Raw:
    return _above(_parts(raw[:, 32:96], 32, 2, 4), _parts(raw[:, :32], 32, 1, 8), 2)


def _q5_codes(raw: Raw) -> Raw:
    return _above(_parts(raw[:, 48:], 32, 4, 2), _parts(raw[:, 16:48], 32, 1, 8), 4)


def _q6_codes(raw: Raw) -> Raw:
    return _above(_parts(raw[:, :128], 64, 4, 2), _parts(raw[:, 128:192], 32, 2, 4), 4)


def _q6_scale(raw: Raw) -> Singles:
    return _single(raw, 208) * raw[:, 192:208].view(np.int8).astype(np.float32)


def _xs_scale(raw: Raw) -> Singles:
    high = np.ascontiguousarray(raw[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    whole = _above(_parts(raw[:, 4:8], 1, 4, 2), _field(high.astype(np.uint8), 0, 2), 4)
    return _single(raw, 0) * (whole.astype(np.float32) - 32)


def _tq1_codes(raw: Raw) -> Raw:
    """Return the codes of TQ1_0: five digits of base 3 in a byte, as a fraction of 256."""

    def digits(part: Raw, many: int) -> Raw:
        powers = np.asarray([1, 3, 9, 27, 81][:many], np.uint8).reshape(1, 1, many, 1)
        runs = part[:, None, None, :]
        return ((runs * powers).astype(np.uint16) * 3 >> 8).astype(np.uint8).reshape(len(part), -1)

    found = [digits(raw[:, :32], 5), digits(raw[:, 32:48], 5), digits(raw[:, 48:52], 4)]
    return np.concatenate(found, axis=1)


def _nvfp4_codes(raw: Raw) -> Raw:
    """Return the codes of NVFP4: of each 16 the first half in low nibbles."""
    return _parts(raw[:, 4:], 8, 4, 2)


def _nvfp4_scale(raw: Raw) -> Raw:
    """Return the scales of NVFP4 as e4m3; ggml has no sign there, and reads 0x7F as 0."""
    scale = raw[:, :4] & np.uint8(0x7F)
    return np.where(scale == 0x7F, np.uint8(0), scale)


def _last(raw: Raw) -> NDArray[np.float16]:
    return _half(raw, raw.shape[1] - 2)


def _lattice(
    name: str,
    nbytes: int,
    group: int,
    codes: Callable[[Raw], Raw],
    scale: Callable[[Raw], Singles],
    levels: tuple[int, ...],
) -> Kind:
    bits = (len(levels) - 1).bit_length()
    format_ = f"codebook{bits}-g{group}-shared-int8-f32"
    return Kind(name, 256, nbytes, format_, codes, scale, levels=levels)


def _ternary(name: str, nbytes: int, codes: Callable[[Raw], Raw]) -> Kind:
    """Return a type of -1, 0 and 1, its scale at the end."""
    return Kind(name, 256, nbytes, "int2-g256-affine-f16", codes, _last, zero=1)


def _fives(start: int) -> Callable[[Raw], Raw]:
    return lambda raw: _nibbles(raw[:, start + 4 :]) | _fifth(raw, start)


def _nibbles_from(start: int) -> Callable[[Raw], Raw]:
    return lambda raw: _nibbles(raw[:, start:])


def _with_constant(bits: int, group: int, scale: str) -> str:
    return f"int{bits}-g{group}-min-{scale}"


def _d(raw: Raw) -> NDArray[np.float16]:
    return _half(raw, 0)


def _m(raw: Raw) -> NDArray[np.float16]:
    return _half(raw, 2)


KINDS: Mapping[int, Kind] = {
    0: Kind("F32", 1, 4, "f32"),
    1: Kind("F16", 1, 2, "f16"),
    30: Kind("BF16", 1, 2, "bf16"),
    2: Kind("Q4_0", 32, 18, "int4-g32-f16", _nibbles_from(2), _d),
    3: Kind("Q4_1", 32, 20, _with_constant(4, 32, "f16"), _nibbles_from(4), _d, _m),
    6: Kind("Q5_0", 32, 22, "int5-g32-f16", _fives(2), _d),
    7: Kind("Q5_1", 32, 24, _with_constant(5, 32, "f16"), _fives(4), _d, _m),
    8: Kind("Q8_0", 32, 34, "int8-g32-f16", lambda raw: raw[:, 2:] ^ np.uint8(128), _d),
    10: Kind(
        "Q2_K", 256, 84, _with_constant(2, 16, "f32"),
        lambda raw: _parts(raw[:, 16:80], 32, 2, 4),
        lambda raw: _single(raw, 80) * _field(raw[:, :16], 0, 4).astype(np.float32),
        lambda raw: -(_single(raw, 82) * _field(raw[:, :16], 4, 4).astype(np.float32)),
    ),
    11: Kind("Q3_K", 256, 110, "int3-g16-f32", _q3_codes, _q3_scale),
    12: Kind(
        "Q4_K", 256, 144, _with_constant(4, 32, "f32"),
        lambda raw: _parts(raw[:, 16:], 32, 4, 2), _k4_scale, _k4_constant,
    ),
    13: Kind("Q5_K", 256, 176, _with_constant(5, 32, "f32"), _q5_codes, _k4_scale, _k4_constant),
    14: Kind("Q6_K", 256, 210, "int6-g16-f32", _q6_codes, _q6_scale),
    16: _lattice("IQ2_XXS", 66, 32, iq.iq2_xxs_codes, iq.iq2_xxs_scale, iq.IQ2),
    17: _lattice("IQ2_XS", 74, 16, iq.iq2_xs_codes, iq.iq2_scale, iq.IQ2),
    18: _lattice("IQ3_XXS", 98, 32, iq.iq3_xxs_codes, iq.iq3_xxs_scale, iq.IQ3_XXS),
    19: _lattice("IQ1_S", 50, 32, iq.iq1_s_codes, iq.iq1_s_scale, iq.IQ1),
    20: Kind(
        "IQ4_NL", 32, 18, "codebook4-g32-shared-int8-f16", _nibbles_from(2), _d, levels=NONLINEAR
    ),
    21: _lattice("IQ3_S", 110, 32, iq.iq3_s_codes, iq.iq3_s_scale, iq.IQ3_S),
    22: _lattice("IQ2_S", 82, 16, iq.iq2_s_codes, iq.iq2_scale, iq.IQ2),
    23: Kind(
        "IQ4_XS", 256, 136, "codebook4-g32-shared-int8-f32",
        lambda raw: _parts(raw[:, 8:], 16, 4, 2), _xs_scale, levels=NONLINEAR,
    ),
    29: _lattice("IQ1_M", 56, 16, iq.iq1_m_codes, iq.iq1_m_scale, iq.IQ1),
    34: _ternary("TQ1_0", 54, _tq1_codes),
    35: _ternary("TQ2_0", 66, lambda raw: _parts(raw[:, :64], 32, 2, 4)),
    39: Kind("MXFP4", 32, 17, "mxfp4", _nibbles_from(1), lambda raw: raw[:, :1], levels=FP4),
    40: Kind("NVFP4", 64, 36, "nvfp4", _nvfp4_codes, _nvfp4_scale, levels=FP4),
    41: Kind(
        "Q1_0", 128, 18, "int2-g128-affine-f16",
        lambda raw: _parts(raw[:, 2:], 1, 1, 8) << np.uint8(1), _d, zero=1,
    ),
}  # by the number that files have for them  # fmt: skip
