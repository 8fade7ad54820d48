"""Folders of whet's own dialect, seen as plain numbers.

Planes say how many rows a matrix has, and only to within a few how many inputs; which it is follows
from the sizes that the configuration names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from whet.formats.spec import Format
from whet.store.dialects.dialect import Held
from whet.store.dialects.whet import WHET, WhetReader, plane_name, schemes_of
from whet.store.sources.place import decoded
from whet.store.sources.source import (
    Config,
    Numbers,
    Quantized,
    SourceDialect,
    array,
    unreadable,
)

TRANSPOSED: Mapping[str, tuple[str, ...]] = {"gpt2": (".c_attn", ".c_proj", ".c_fc")}
ROWS = ("mask", "codes", "0.codes", "left.value", "left.codes", "0.mask")
INPUTS = ("input_scale", "input_zero_point")
KIND, SIZES = "model_type", "sizes"  # what `Source` adds to a `quantization_config`


@dataclass(frozen=True, slots=True)
class OwnWeight(Quantized):
    """One matrix of a folder of whet's."""

    reader: WhetReader
    coded: Format
    transposed: bool

    def dense(self) -> Numbers:
        """Return the values, as a checkpoint of plain numbers has them."""
        rows, cols = reversed(self.shape) if self.transposed else self.shape
        found = decoded(self.reader.planes(self.module, self.coded, (rows, cols)))
        return np.ascontiguousarray(found.T) if self.transposed else found


class OwnSource(SourceDialect):
    """Reads whet's own dialect."""

    name, runs = WHET.name, False

    def describe(self, config: Config) -> str:
        """Return e.g. `whet nf4-g64`."""
        schemes = config.get("schemes")
        listed = schemes if isinstance(schemes, list) else []
        names = dict.fromkeys(str(s.get("format")) for s in listed if isinstance(s, dict))
        return f"whet {', '.join(names)}"[:200]

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the modules that have a scheme."""
        reader = WhetReader(schemes_of(config, held.where), held)
        ends = TRANSPOSED.get(str(config.get(KIND)), ())
        for module, scheme in reader.schemes.items():
            if scheme.is_plain:
                continue
            rows, cols = _shape(held, module, scheme.format, config[SIZES])
            planes = scheme.format.planes((rows, cols))
            names = (*map(plane_name, planes), *INPUTS)
            uses = tuple(n for part in names if (n := f"{module}.{part}") in held.names)
            turned = module.endswith(ends) if ends else False
            shape = (cols, rows) if turned else (rows, cols)
            yield OwnWeight(held, f"{module}.weight", uses, shape, reader, scheme.format, turned)


def sizes_of(config: Mapping[str, Any]) -> frozenset[int]:
    """Return every size that a configuration names, and the products of heads and their widths."""
    found = {size for size in _numbers(config) if 0 < size < 1 << 24}
    heads = {config.get(k) for k in ("num_attention_heads", "num_key_value_heads", "n_head")}
    widths = {config.get("head_dim")}
    products = {a * b for a in heads for b in widths if isinstance(a, int) and isinstance(b, int)}
    return frozenset(found | products | {4 * size for size in found})


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif type(value) is int:
        yield value


def _shape(held: Held, module: str, format_: Format, sizes: frozenset[int]) -> tuple[int, int]:
    """Return (out, in): the one whose planes are those that are stored."""
    stored = {
        name: array(held, full).shape
        for name in format_.planes((1, 64))
        if (full := f"{module}.{plane_name(name)}") in held.names
    }
    rows = next((stored[name][0] for name in ROWS if name in stored), None)
    if rows is None:
        raise unreadable(held, f"{module} has no codes of {format_}")
    fits = [
        size
        for size in sorted(sizes)
        if format_.refuses((rows, size)) is None
        and {n: p.shape for n, p in format_.planes((rows, size)).items()} == stored
    ]
    if len(fits) != 1:
        told = ", ".join(map(str, fits)) or "none"
        raise unreadable(held, f"{module}: sizes of config.json that fit its planes: {told}")
    return rows, fits[0]
