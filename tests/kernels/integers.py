"""Random integer weights in their stored planes, and what multiplying by them gives, in numpy."""

import numpy as np

from whet.formats.element import Learned, Minifloat
from whet.formats.spec import parse
from whet.kernels.levels import levels

TOPS = {"int8": 127, "int16": 127 * 256 + 127}  # the greatest code where each step has a scale
SCALES = {"bf16": np.uint16, "f16": np.float16, "f32": np.float32, "e8m0": np.uint8}


def bit_stream(codes, bits):
    """Rows of codes as dense little-endian bit streams."""
    places = codes[..., None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(places.reshape(len(codes), -1), axis=1, bitorder="little")


def stored_scale(values, kind):
    """Scales in their stored type, and what they stand for."""
    if kind == "bf16":
        bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    if kind == "e8m0":
        exponents = np.clip(np.log2(np.abs(values)).round() + 127, 0, 254).astype(np.uint8)
        return exponents, np.ldexp(np.float32(1), exponents.astype(np.int32) - 127)
    stored = values.astype(SCALES[kind])
    return stored, stored.astype(np.float32)


class Weight:
    """A random member of a format: `planes` as stored, and `units` and `scales` [row, group].

    `given` are the planes that kernels are told, with the table of the codes where it is fixed.
    """

    def __init__(self, name, rows, cols, seed=0):
        random = np.random.default_rng(seed)
        self.format, self.rows, self.cols = parse(name), rows, cols
        bits, one = self.format.element.bits, self.format.grouping == "tensor"
        self.group, groups = self.format.group(cols), self.format.groups(cols)
        codes = random.integers(0, 2**bits, (rows, cols), dtype=np.uint8)
        size = (1, 1) if one else (rows, groups)
        values = random.choice([-1.0, 1.0], size) * random.lognormal(-4, 1, size)
        scale, self.scales = stored_scale(values, self.format.scale)
        zero = np.full(size, 2 ** (bits - 1))
        self.planes = {"codes": bit_stream(codes, bits), "scale": scale}
        if self.format.affine:
            zero = random.integers(0, 2**bits, size, dtype=np.uint8)
            self.planes["zero"] = np.ascontiguousarray(bit_stream(zero.T, bits).T)
        self.minima = np.zeros((rows, groups), np.float32)
        if self.format.minimum:
            zero = np.zeros(size, np.uint8)
            minimum, minima = stored_scale(-np.abs(values) * 8, self.format.scale)
            self.planes["minimum"] = minimum
            self.minima = np.broadcast_to(minima, (rows, groups))
        self.scales = np.broadcast_to(self.scales, (rows, groups))
        column_zero = np.broadcast_to(zero, (rows, groups))[:, np.arange(cols) // self.group]
        self.units = codes.astype(np.int64) - column_zero
        self._look_up(codes, random)

    def _look_up(self, codes, random):
        """Let codes stand for the levels of a table, where the format has one."""
        self.given, element = self.planes, self.format.element
        if isinstance(element, Learned):
            table = random.integers(-128, 128, (1, 2**element.bits), dtype=np.int8)
            table[0, :2] = -128, 127
            self.planes["levels"] = table
            self.units = table[0].astype(np.int64)[codes]
        if isinstance(element, Minifloat):
            table = levels(element)
            self.given = self.planes | {"table": table}
            self.units = (2 * table).astype(np.int64)[codes]
            self.scales = self.scales * np.float32(0.5)


def input_step(weight, mode):
    """How many inputs of a token share a scale (or, for one scale a token, are summed exactly)."""
    group = weight.group
    if mode == "token8":
        return group
    if isinstance(weight.format.grouping, str) or group % 32 == 0:
        return 32
    return next((step for step in range(64, 15, -4) if group % step == 0), group)


def rounded(x, mode, step, fixed=0.0):
    """Activations as codes of int8, or of int16, and a scale for each token and step."""
    tokens, cols = x.shape
    steps = -(-cols // step)
    blocks = np.zeros((tokens, steps * step), np.float32)
    blocks[:, :cols] = x
    blocks = blocks.reshape(tokens, steps, step)
    if mode in TOPS:
        most, top = np.abs(blocks).max(-1), np.float32(TOPS[mode])
        scales = most / top
        inverse = np.divide(top, most, out=np.zeros_like(most), where=most > 0)
        return np.rint(blocks * inverse[..., None]).astype(np.int64), scales
    most = np.abs(blocks).max((1, 2)) / np.float32(127.5)
    scale = np.where(most == 0, np.finfo(np.float32).eps, most) if fixed == 0 else most * 0 + fixed
    scales = np.repeat(scale.astype(np.float32)[:, None], steps, 1)
    ratio = blocks / scales[..., None]
    return np.rint(np.clip(ratio, -128, 127)).astype(np.int64), scales


def product(weight, x, mode, fixed=0.0):
    """Return x·Wᵀ by exact sums of integers for each step, and the sum of magnitudes."""
    step = input_step(weight, mode)
    codes, scales = rounded(x, mode, step, fixed)
    steps = codes.shape[1]
    units = np.zeros((weight.rows, steps * step), np.int64)
    units[:, : weight.cols] = weight.units
    groups = np.arange(steps) * step // weight.group
    dots = np.einsum("tks,rks->trk", codes, units.reshape(weight.rows, steps, step))
    terms = dots * weight.scales[:, groups].astype(np.float64)[None]
    shifts = codes.sum(-1)[:, None] * weight.minima[:, groups].astype(np.float64)[None]
    inputs = scales[:, None].astype(np.float64)
    whole = ((terms + shifts) * inputs).sum(-1)
    return whole, ((np.abs(terms) + np.abs(shifts)) * inputs).sum(-1)
