"""A folder that is still to be written: all that can be known of it before. Torch-free."""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whet.store.folder import Folder, Stored
from whet.store.shard import WIDTHS, TensorInfo

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor -> (dtype of safetensors, shape)


class Outline(Folder):
    """The configuration and the shapes of a folder; `path` is that of the model it is made from.

    Law: it has the tensors, and the size, of the folder that is written.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], shapes: Shapes) -> None:
        self.path = self.home = path
        self.files = ()
        self.stored_as = ""
        self.config = MappingProxyType(dict(config))
        self.shards = {}
        self.tensors = MappingProxyType(
            {
                name: Stored("", TensorInfo(dtype, shape, 0, prod(shape) * WIDTHS[dtype]))
                for name, (dtype, shape) in shapes.items()
            }
        )

    @cached_property
    def nbytes(self) -> int:
        """Size of all tensors [byte]."""
        return sum(stored.info.nbytes for stored in self.tensors.values())
