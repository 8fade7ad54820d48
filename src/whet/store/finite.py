"""The first number of a folder that is none: NaN or infinite. Needs numpy, not torch."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from whet.store.folder import Folder
from whet.store.shard import WIDTHS, Shard

# A float is not finite if all bits of its exponent are set; e4m3fn has only NaN, all bits set.
_MASKS: Mapping[str, tuple[type[np.unsignedinteger], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0000000000000),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
CHUNK = 16 << 20  # [byte]


def find_nonfinite(folder: Folder) -> tuple[str, tuple[int, ...]] | None:
    """Return the name and the index of the first number that is not finite, or None.

    Tensors are read piece by piece; nothing stays in memory.
    """
    for shard in folder.shards.values():
        for name in shard.tensors:
            index = _in_tensor(shard, name)
            if index is not None:
                return name, index
    return None


def _in_tensor(shard: Shard, name: str) -> tuple[int, ...] | None:
    info = shard.tensors[name]
    if info.dtype not in _MASKS:
        return None
    kind, mask = _MASKS[info.dtype]
    seen = 0
    for chunk in shard.chunks(name, CHUNK):
        bits: NDArray[np.unsignedinteger] = np.frombuffer(chunk, dtype=kind)
        bad = (bits & kind(mask)) == mask
        if bad.any():
            return tuple(int(i) for i in np.unravel_index(seen + int(bad.argmax()), info.shape))
        seen += len(chunk) // WIDTHS[info.dtype]
    return None
