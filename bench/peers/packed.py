"""Bits that a packed folder really stores per weight of its block linears.

Only the headers of its safetensors files are read.
"""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

_IN_BLOCK = re.compile(r"\.layers\.\d+\.")


def bits_per_weight(folder: Path, original: Path) -> float:
    """Size of the block tensors over the number of weights in the original's block matrices [bit].

    Vectors that the original has too, such as norms, do not count.
    """
    before, after = _headers(original), _headers(folder)
    matrices = {name: entry for name, entry in before.items() if len(entry["shape"]) == 2}
    weights = sum(math.prod(entry["shape"]) for entry in matrices.values())
    vectors = before.keys() - matrices.keys()
    stored = sum(_bytes(entry) for name, entry in after.items() if name not in vectors)
    return 8 * stored / weights


def _bytes(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return end - start


def _headers(folder: Path) -> dict[str, dict[str, Any]]:
    """The header entries of all tensors inside blocks."""
    entries: dict[str, dict[str, Any]] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entries |= json.loads(file.read(length))
    return {name: entry for name, entry in entries.items() if _IN_BLOCK.search(name)}
