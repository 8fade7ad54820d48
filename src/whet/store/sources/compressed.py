"""compressed-tensors, by whet or by others, seen as plain numbers.

The formats that have planes are read by the dialect; two that have none are read here: fp8 in
blocks of rows and inputs, and groups that are not runs of inputs (`weight_g_idx`, act-order).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from whet.formats.spec import Coded
from whet.store.array import Array, Planar
from whet.store.dialects.compressed_tensors import COMPRESSED_TENSORS, CompressedReader
from whet.store.dialects.dialect import Held
from whet.store.sources.fp8 import INPUTS, fp8_weight
from whet.store.sources.place import Matrix, decoded
from whet.store.sources.source import (
    Config,
    Numbers,
    Quantized,
    SourceDialect,
    array,
    modules,
    present,
    unreadable,
)

SCALE, PACKED, ORDER = "weight_scale", "weight_packed", "weight_g_idx"
PARTS = ("weight_zero_point", "weight_shape", "weight_global_scale", ORDER)
GLOBAL = "input_global_scale"


@dataclass(frozen=True, slots=True)
class CompressedWeight(Quantized):
    """One linear of a folder of compressed-tensors."""

    reader: CompressedReader

    def dense(self) -> Numbers:
        """Return the values."""
        rows, cols = self.shape
        found = self.reader.weight(Matrix(self.module, (rows, cols)))
        if found is None:
            raise unreadable(self.held, f"no config group names {self.module}, which has a scale")
        name = f"{self.module}.{ORDER}"
        return decoded(found) if name not in self.uses else self._ordered(found, name)

    def _ordered(self, found: Planar, name: str) -> Numbers:
        """Return the values where `weight_g_idx` says which group an input belongs to.

        Runs of inputs are decoded with a scale of one, and scaled by their own groups' after.
        """
        group = array(self.held, name, "I32", "I64").data.reshape(-1)
        scale = found.planes["scale"].float32()
        zeros = found.planes.get("zero")
        if zeros is not None or not isinstance(found.format, Coded):
            raise unreadable(self.held, f"{self.module} has act-order and zero points")
        unit = np.ones_like(scale)
        planes = {**found.planes, "scale": _like(unit, found.planes["scale"].dtype)}
        return decoded(Planar(found.format, planes, found.shape)) * scale[:, group]


class CompressedSource(SourceDialect):
    """Reads compressed-tensors."""

    name, runs = COMPRESSED_TENSORS.name, False

    def describe(self, config: Config) -> str:
        """Return e.g. `compressed-tensors pack-quantized`."""
        return f"{self.name} {str(config.get('format', ''))[:40]}".strip()

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the linears that have a scale."""
        reader: CompressedReader | None = None
        blocks = _blocks(config)
        for module in modules(held, f".{SCALE}"):
            if f"{module}.{PACKED}" not in held.names and _is_block(held, module, blocks):
                name = f"{module}.weight"
                yield fp8_weight(held, name, f"{module}.{SCALE}", blocks)
                continue
            if reader is None:
                plain = {k: v for k, v in config.items() if k != "kv_cache_scheme"}
                reader = CompressedReader.of(plain, held)
            uses = present(held, module, PACKED, "weight", SCALE, *PARTS, *INPUTS, GLOBAL)
            uses += present(held, module, "input_zero_point")
            yield CompressedWeight(held, f"{module}.weight", uses, _shape(held, module), reader)


def _like(values: Numbers, dtype: str) -> Array:
    """Return ones in the type of a scale."""
    if dtype == "BF16":
        return Array(dtype, (values.view(np.uint32) >> 16).astype(np.uint16))
    return Array(dtype, values.astype(np.float16) if dtype == "F16" else values)


def _shape(held: Held, module: str) -> tuple[int, int]:
    """Return (out, in)."""
    if f"{module}.{PACKED}" not in held.names:
        rows, cols = array(held, f"{module}.weight").shape
        return rows, cols
    rows, width = array(held, f"{module}.{PACKED}").shape
    if f"{module}.weight_shape" in held.names:
        told = array(held, f"{module}.weight_shape", "I32", "I64").data.reshape(-1).tolist()
        return int(told[0]), int(told[1])
    return rows, 2 * width


def _blocks(config: Config) -> tuple[int, int] | None:
    """Return the rows and inputs of a block, where a config group says so."""
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights: Any = group.get("weights") if isinstance(group, Mapping) else None
        found = weights.get("block_structure") if isinstance(weights, Mapping) else None
        if isinstance(found, list) and len(found) == 2:
            return int(found[0]), int(found[1])
    return None


def _is_block(held: Held, module: str, block: tuple[int, int] | None) -> bool:
    """Return whether a scale belongs to blocks of rows and inputs."""
    if block is None:
        return False
    rows, cols = array(held, f"{module}.weight").shape
    count = -(-rows // block[0]) * -(-cols // block[1])
    return prod(array(held, f"{module}.{SCALE}").shape) == count and count not in (1, rows)
