"""bitsandbytes: 4 bits (nf4 and fp4, absmax quantized again or not) and LLM.int8.

4 bits: `weight` holds two codes a byte of the flattened matrix, the high one first; `quant_map` is
the table of values, `absmax` the scale of each `blocksize` weights. Where absmax is quantized too,
it indexes `nested_quant_map`, times `nested_absmax` of each `nested_blocksize`, plus an offset.
`quant_state.bitsandbytes__*` is JSON as bytes. Read from bitsandbytes, `functional.py`, QuantState.
LLM.int8: `weight` int8 and `SCB`, the greatest magnitude of each row, which stands for 127.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.formats.spec import Format, parse
from whet.store.dialects.dialect import Held
from whet.store.json_file import parse_json
from whet.store.sources.floats import nibbles
from whet.store.sources.source import (
    Bytes,
    Config,
    Numbers,
    Quantized,
    SourceDialect,
    array,
    expect,
    modules,
    present,
    unreadable,
)

STATE = ".weight.quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")
LARGEST = 127  # of int8
NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FourBitWeight(Quantized):
    """A weight `table[code] * absmax`."""

    state: Mapping[str, Any]

    def dense(self) -> Numbers:
        """Return the values."""
        table = array(self.held, f"{self.name}.quant_map", "F32").data
        count, size = self.shape[0] * self.shape[1], self.state["blocksize"]
        found = table[self._codes()[:count]]
        found *= np.repeat(self._absmax(), size)[:count]
        return found.reshape(self.shape)

    def format(self) -> Format | None:
        """Return nf4 in groups, where they do not cross rows and the table is the published one."""
        size, table = self.state["blocksize"], array(self.held, f"{self.name}.quant_map", "F32")
        same = np.array_equal(table.data, np.asarray(NF4_LEVELS, np.float32))
        return parse(f"nf4-g{size}-f32") if same and self.shape[1] % size == 0 else None

    def plane(self, name: str) -> NDArray[Any]:
        """Return a plane: whet has the low code first."""
        if name == "codes":
            stored = array(self.held, self.name, "U8").data
            swapped = (stored << 4) | (stored >> 4)
            return swapped.reshape(self.shape[0], self.shape[1] // 2)
        return self._absmax().reshape(self.shape[0], -1)

    def _codes(self) -> Bytes:
        return nibbles(array(self.held, self.name, "U8").data.reshape(-1), high_first=True)

    def _absmax(self) -> Numbers:
        """Return the scale of each block."""
        stored = array(self.held, f"{self.name}.absmax", "F32", "U8")
        if stored.dtype == "F32":
            return stored.data
        table = array(self.held, f"{self.name}.nested_quant_map", "F32").data
        outer = array(self.held, f"{self.name}.nested_absmax", "F32").data
        size = self.state["nested_blocksize"]
        found = table[stored.data] * np.repeat(outer, size)[: stored.data.size]
        return found + np.float32(self.state["nested_offset"])


@dataclass(frozen=True, slots=True)
class Int8Weight(Quantized):
    """A weight `code * SCB / 127`."""

    def dense(self) -> Numbers:
        """Return the values, rounded to float32."""
        return array(self.held, self.name, "I8").data.astype(np.float32) * self._scale()

    def format(self) -> Format:
        """Return 8-bit integers with a scale for each row."""
        return parse("int8-channel-f32")

    def plane(self, name: str) -> NDArray[Any]:
        """Return a plane."""
        if name == "codes":
            return array(self.held, self.name, "I8").data.view(np.uint8) ^ np.uint8(0x80)
        return self._scale()

    def _scale(self) -> Numbers:
        stored = array(self.held, f"{self.module}.SCB").float32().reshape(-1, 1)
        return stored / np.float32(LARGEST)


class BitsAndBytes(SourceDialect):
    """Reads bitsandbytes."""

    name = "bitsandbytes"

    def describe(self, config: Config) -> str:
        """Return e.g. `bitsandbytes nf4`."""
        kind = (
            config.get("bnb_4bit_quant_type", "fp4") if config.get("load_in_4bit") else "LLM.int8"
        )
        return f"bitsandbytes {str(kind)[:40]}"

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the linears that have a state or row maxima."""
        for kind in KINDS:
            for module in modules(held, STATE + kind):
                yield _four_bit(held, module, kind)
        for module in modules(held, ".SCB"):
            shape = array(held, f"{module}.weight", "I8").shape
            expect(held, f"{module}.SCB", array(held, f"{module}.SCB").shape, shape[:1])
            uses = present(held, module, "weight", "SCB", "weight_format")
            if f"{module}.weight_format" in uses:
                _refuse_tiles(held, f"{module}.weight_format")
            yield Int8Weight(held, f"{module}.weight", uses, shape)


def _refuse_tiles(held: Held, name: str) -> None:
    """Raise unless rows lie one after the other; 1 to 3 are tiles of some processors."""
    if np.any(array(held, name, "U8").data):
        raise unreadable(held, f"{name} says that the weight lies in tiles, expected rows")


def _four_bit(held: Held, module: str, kind: str) -> FourBitWeight:
    name = f"{module}.weight"
    where = f"{held.where}: {module}{STATE}{kind}"
    state = parse_json(array(held, f"{module}{STATE}{kind}", "U8").data.tobytes(), where)
    shape, size = state.get("shape"), state.get("blocksize")
    if not isinstance(shape, list) or len(shape) != 2 or type(size) is not int or size < 1:
        raise unreadable(held, f"{module} has no shape and block size in its state")
    rows, cols = shape
    many = -(-rows * cols // size)
    stored = array(held, name, "U8").shape
    expect(held, name, (int(np.prod(stored)),), (-(-rows * cols // 2),))
    expect(held, f"{name}.absmax", array(held, f"{name}.absmax").shape, (many,))
    parts = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
    uses = present(held, name, *parts, f"quant_state.bitsandbytes__{kind}")
    return FourBitWeight(held, name, (name, *uses), (rows, cols), state)
