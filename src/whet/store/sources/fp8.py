"""8-bit floats with scales: `fp8` of DeepSeek and Qwen (blocks) and of vLLM, and `fbgemm_fp8`.

A tensor T of type e4m3 (or e5m2) has its scale in `T_scale_inv` or `T_scale`, by which it is
multiplied, whatever the name says: one number, one a row, or one for each block of
`weight_block_size` (rows × inputs). Experts may lie in one tensor of three axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.formats.spec import Format, parse
from whet.store.dialects.dialect import Held
from whet.store.sources.floats import TABLES, scale_values
from whet.store.sources.source import (
    Config,
    Numbers,
    Quantized,
    SourceDialect,
    array,
    unreadable,
)

SCALES = ("_scale_inv", "_scale")
INPUTS = ("input_scale", "input_scale_ub", "activation_scale", "output_scale", "act_scale")


@dataclass(frozen=True, slots=True)
class Fp8Weight(Quantized):
    """A weight `code * scale`."""

    scale: str
    block: tuple[int, int]  # rows and inputs that share a scale

    def dense(self) -> Numbers:
        """Return the values, rounded to float32 where a scale has too many digits."""
        stored = array(self.held, self.name, *TABLES)
        found = TABLES[stored.dtype][stored.data]
        found *= self._spread(
            self.shape[-1], 1 if self.block[1] >= self.shape[-1] else self.block[1]
        )
        return found

    def format(self) -> Format | None:
        """Return fp8 in groups along the inputs; rows of a block repeat their scale."""
        stored = array(self.held, self.name)
        if stored.dtype != "F8_E4M3" or len(self.shape) != 2:
            return None
        if self.block[1] < self.shape[1]:
            return parse(f"fp8-e4m3-g{self.block[1]}-f32")
        return parse(f"fp8-e4m3-{'tensor' if self.block[0] >= self.shape[0] else 'channel'}-f32")

    def plane(self, name: str) -> NDArray[Any]:
        """Return a plane."""
        if name == "codes":
            return array(self.held, self.name).data
        rows, groups = self._groups()
        scale = scale_values(array(self.held, self.scale)).reshape(rows, groups)
        if rows == 1 and groups == 1 and self.block[0] >= self.shape[0]:
            return scale
        return np.ascontiguousarray(np.repeat(scale, self.block[0], 0)[: self.shape[0]])

    def _groups(self) -> tuple[int, int]:
        rows, cols = self.shape[-2:]
        return -(-rows // self.block[0]), -(-cols // self.block[1])

    def _spread(self, cols: int, width: int) -> Numbers:
        """Return the scale of each weight, or of each row where rows have one."""
        scale = scale_values(array(self.held, self.scale))
        scale = scale.reshape(*self.shape[:-2], *self._groups())
        rows = np.repeat(scale, self.block[0], -2)[..., : self.shape[-2], :]
        return rows if width == 1 else np.repeat(rows, width, -1)[..., :cols]


class Fp8(SourceDialect):
    """Reads 8-bit floats."""

    def __init__(self, name: str) -> None:
        self.name = name

    def describe(self, config: Config) -> str:
        """Return e.g. `fp8 in blocks of 128 × 128`."""
        block = _block(config)
        return f"{self.name} in blocks of {block[0]} × {block[1]}" if block else self.name

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the tensors that have a scale."""
        for name in held.names:
            scale = next((name + s for s in SCALES if name + s in held.names), None)
            if scale is not None and not name.endswith(SCALES):
                yield fp8_weight(held, name, scale, _block(config))


def fp8_weight(held: Held, name: str, scale: str, block: tuple[int, int] | None) -> Fp8Weight:
    """Return the weight of a tensor and its scale; how they lie follows from their shapes."""
    shape, size = array(held, name, *TABLES).shape, array(held, scale).shape
    module = name.rpartition(".")[0]
    inputs = (f"{module}.{part}" for part in INPUTS)
    uses = (name, scale, *(found for found in inputs if found in held.names))
    found = _blocks(shape, size, block)
    if found is None:
        raise unreadable(
            held, f"{name} of {list(shape)} has a scale of {list(size)}, which does not fit it"
        )
    return Fp8Weight(held, name, uses, shape, scale, found)


def _blocks(
    shape: tuple[int, ...], size: tuple[int, ...], block: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Return how many rows and inputs share a scale."""
    if len(shape) < 2:
        return None
    count, stacks, (rows, cols) = prod(size), prod(shape[:-2]), shape[-2:]
    if block and count == stacks * -(-rows // block[0]) * -(-cols // block[1]) and len(size) > 1:
        return block
    if count == stacks:
        return rows, cols
    return (1, cols) if count == stacks * rows else None


def _block(config: Config) -> tuple[int, int] | None:
    """Return the rows and inputs of a block, where there are blocks."""
    found = config.get("weight_block_size")
    if isinstance(found, list) and len(found) == 2 and all(type(x) is int and x > 0 for x in found):
        return found[0], found[1]
    return None
