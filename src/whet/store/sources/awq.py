"""AWQ's folders (AutoAWQ, version gemm): `qweight` and `qzeros` packed along the outputs.

Eight codes of 4 bits a word, value `ORDER[i]` at bit 4 i; zero points are stored as they are.
Read from AutoAWQ, `awq/utils/packing_utils.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whet.store.array import Array
from whet.store.dialects.dialect import Held
from whet.store.sources.grid import GridWeight, grid_name
from whet.store.sources.source import (
    Bytes,
    Config,
    Quantized,
    SourceDialect,
    array,
    expect,
    modules,
    number,
    present,
    unreadable,
)

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PER_WORD, BITS = 8, 4


@dataclass(frozen=True, slots=True)
class AwqWeight(GridWeight):
    """One linear of an AWQ folder."""

    def codes(self) -> Bytes:
        """Return the codes, (out, in)."""
        words = array(self.held, f"{self.module}.qweight", "I32").data
        return np.ascontiguousarray(_unpacked(words).T)

    def zeros(self) -> Bytes:
        """Return the zero points, (groups, out); without them the middle of the range."""
        name = f"{self.module}.qzeros"
        if name not in self.held.names:
            return np.full(self.scales().shape, 1 << (BITS - 1), np.uint8)
        return _unpacked(array(self.held, name, "I32").data)

    def scales(self) -> Array:
        """Return the scales, (groups, out)."""
        return array(self.held, f"{self.module}.scales", "F16", "BF16", "F32")


class Awq(SourceDialect):
    """Reads AWQ."""

    name = "awq"

    def describe(self, config: Config) -> str:
        """Return e.g. `AWQ int4-g128`."""
        group = config.get("group_size", config.get("q_group_size"))
        return f"AWQ {grid_name(BITS, group)}" if type(group) is int else "AWQ"

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the linears that have a `qweight`."""
        version = str(config.get("version", "gemm")).lower()
        if version != "gemm":
            raise unreadable(held, f"AWQ in the layout {version!r}, expected gemm")
        bits = number(config, "bits", number(config, "w_bit", BITS, held.where), held.where)
        if bits != BITS:
            raise unreadable(held, f"AWQ of {bits} bits, expected {BITS}")
        for module in modules(held, ".qweight"):
            yield _weight(module, config, held)


def _weight(module: str, config: Config, held: Held) -> AwqWeight:
    inputs, words = array(held, f"{module}.qweight", "I32").shape
    out = words * PER_WORD
    group = number(config, "group_size", number(config, "q_group_size", 128, "AWQ"), held.where)
    group = group if group > 0 else inputs
    groups = -(-inputs // group)
    expect(held, f"{module}.scales", array(held, f"{module}.scales").shape, (groups, out))
    uses = present(held, module, "qweight", "qzeros", "scales")
    if f"{module}.qzeros" in uses:
        zeros = array(held, f"{module}.qzeros", "I32").shape
        expect(held, f"{module}.qzeros", zeros, (groups, words))
    return AwqWeight(held, f"{module}.weight", uses, (out, inputs), BITS, group)


def _unpacked(words: NDArray[np.int32]) -> Bytes:
    """Return rows of words as rows of codes."""
    rows, count = words.shape
    found = np.empty((rows, count, PER_WORD), np.uint8)
    unsigned = words.view(np.uint32)
    for place, value in enumerate(ORDER):
        found[:, :, value] = (unsigned >> np.uint32(BITS * place)) & np.uint32(2**BITS - 1)
    return found.reshape(rows, count * PER_WORD)
