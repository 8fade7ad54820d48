"""GPTQ's folders, versions 1 and 2 (AutoGPTQ, GPTQModel): `qweight`, `qzeros`, `scales`, `g_idx`.

Codes are bit streams of 32-bit words along the inputs, `qweight` [words, out], for 3 bits too (the
layout of 10, 1, 10, 1 and 10 values in three words is such a stream). Zero points are streams along
the outputs, `qzeros` [groups, words]; version 1 stores them less one, modulo the range.
Read from GPTQModel, `nn_modules/qlinear/__init__.py` and `utils/model.py`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.bits import unpacked
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

BITS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class GptqWeight(GridWeight):
    """One linear of a GPTQ folder."""

    shift: int  # added to the stored zero points

    def codes(self) -> Bytes:
        """Return the codes, (out, in)."""
        words = array(self.held, f"{self.module}.qweight", "I32").data
        return unpacked(_bytes(words.T), self.bits, self.shape[1])

    def zeros(self) -> Bytes:
        """Return the zero points, (groups, out)."""
        words = array(self.held, f"{self.module}.qzeros", "I32").data
        stored = unpacked(_bytes(words), self.bits, self.shape[0])
        return (stored + np.uint8(self.shift)) & np.uint8(2**self.bits - 1)

    def scales(self) -> Array:
        """Return the scales, (groups, out)."""
        return array(self.held, f"{self.module}.scales", "F16", "BF16", "F32")

    def order(self) -> NDArray[np.int64]:
        """Return the group of each input, as `g_idx` says where there is one."""
        name = f"{self.module}.g_idx"
        if name not in self.held.names:
            return GridWeight.order(self)
        found = array(self.held, name, "I32", "I64").data.astype(np.int64)
        expect(self.held, name, found.shape, (self.shape[1],))
        groups = self.scales().shape[0]
        if found.size and not (found.min() >= 0 and found.max() < groups):
            raise FolderError(
                f"{self.held.where}: {name} names groups beyond the {groups} that there are",
                "download the file again",
            )
        return found


class Gptq(SourceDialect):
    """Reads GPTQ."""

    name = "gptq"

    def describe(self, config: Config) -> str:
        """Return e.g. `GPTQ int4-g128`."""
        bits, group = config.get("bits"), config.get("group_size", -1)
        order = " with act-order" if config.get("desc_act") else ""
        if type(bits) is not int or type(group) is not int or bits not in BITS:
            return "GPTQ"
        return f"GPTQ {grid_name(bits, group)}{order}"

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the linears that have a `qweight`."""
        version = config.get("checkpoint_format", "gptq")
        if version not in ("gptq", "gptq_v2"):
            raise unreadable(held, f"GPTQ in the layout {version!r}, expected gptq or gptq_v2")
        if config.get("pack_dtype", "int32") != "int32":
            raise unreadable(held, f"GPTQ packed in {config['pack_dtype']}, expected int32")
        for module in modules(held, ".qweight"):
            yield _weight(module, _own(config, module), held, 1 if version == "gptq" else 0)


def _own(config: Config, module: str) -> Config:
    """Return the settings of a module: those of `dynamic`, where a pattern of it matches."""
    dynamic = config.get("dynamic") or {}
    if not isinstance(dynamic, Mapping):
        return config
    for pattern, changed in dynamic.items():
        if not pattern.startswith("-:") and re.match(pattern.removeprefix("+:"), module):
            return dict(config) | dict(changed)
    return config


def _weight(module: str, config: Config, held: Held, shift: int) -> GptqWeight:
    bits = number(config, "bits", 4, held.where)
    if bits not in BITS:
        raise unreadable(held, f"{module} has codes of {bits} bits, expected {BITS}")
    words, out = array(held, f"{module}.qweight", "I32").shape
    inputs = words * 32 // bits
    groups, _ = array(held, f"{module}.scales").shape
    if f"{module}.g_idx" in held.names:
        inputs = array(held, f"{module}.g_idx").shape[0]
    group = number(config, "group_size", -1, held.where)
    group = group if group > 0 else inputs
    expect(held, f"{module}.qweight", (words, out), (-(-inputs * bits // 32), out))
    expect(held, f"{module}.scales", (groups, out), (-(-inputs // group), out))
    zeros = array(held, f"{module}.qzeros", "I32").shape
    expect(held, f"{module}.qzeros", zeros, (groups, -(-out * bits // 32)))
    uses = present(held, module, "qweight", "qzeros", "scales", "g_idx")
    return GptqWeight(held, f"{module}.weight", uses, (out, inputs), bits, group, shift)


def _bytes(words: NDArray[np.int32]) -> Bytes:
    """Return rows of words as rows of bytes."""
    return np.ascontiguousarray(words).view(np.uint8)
