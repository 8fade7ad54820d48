"""The tensors of a folder, whatever dialect they are written in. Torch-free."""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.spec import Float, Format
from whet.store.array import Array, Planar, part, stored
from whet.store.dialects import reader_of
from whet.store.dialects.dialect import Held, Input, expect_shape
from whet.store.folder import Folder
from whet.store.scheme import Place

FLOATS: Mapping[str, Literal["F32", "F16", "BF16"]] = {"F32": "F32", "F16": "F16", "BF16": "BF16"}


class Contents:
    """A folder as a source of arrays and of matrices in their formats.

    `mapped` reads through a memory map (the runtime: pages come when touched, and are shared);
    otherwise by plain reads (the sweep: what is dropped is gone).
    Law: both give the same numbers.
    """

    def __init__(self, folder: Folder, *, mapped: bool = False) -> None:
        self.folder, self.mapped = folder, mapped
        held = Held(folder.tensors.keys(), self.array, str(folder.path))
        self._reader = reader_of(folder.config.get("quantization_config"), held)

    @property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` says."""
        return self.folder.config

    def names(self) -> Collection[str]:
        """Return the names of all stored tensors."""
        return self.folder.tensors.keys()

    def array(self, name: str) -> Array:
        """Return a tensor as it is stored."""
        return stored(self.folder.shard_of(name), name, mapped=self.mapped)

    def format(self, place: Place) -> Format:
        """Return the format of a place's weight, which is not read."""
        return self._reader.format(place) or self._float(place.tensor)

    def weight(self, place: Place) -> Planar:
        """Return the weight of a place, oriented (out, in) whatever the storage."""
        return self._reader.weight(place) or self._plain(place)

    def activation(self, place: Place) -> Input | None:
        """Return how the input of a place is quantized, and its static scale, or None."""
        return self._reader.activation(place)

    def _plain(self, place: Place) -> Planar:
        """Return a weight of plain numbers; of experts stored together only one is read."""
        name, where = place.tensor, f"{self.folder.path}: {place.tensor}"
        dtype = self.folder.shard_of(name).tensors[name].dtype
        apart = name == f"{place.module}.weight"
        found: NDArray[Any] = place.oriented(self.array(name).data if apart else _Stack(self, name))
        expect_shape(where, found.shape, place.shape)
        if dtype == "F64":
            found = found.astype(np.float32)
        format_ = self._float(name)
        value = Array(format_.dtype, np.ascontiguousarray(found))
        return Planar(format_, {"value": value}, place.shape)

    def _float(self, name: str) -> Float:
        """Return the format in which a tensor of plain numbers is read."""
        dtype = self.folder.shard_of(name).tensors[name].dtype
        known = FLOATS.get("F32" if dtype == "F64" else dtype)
        if known is None:
            raise FolderError(
                f"{self.folder.path}: {name} is {dtype}, expected a float",
                "the folder may be quantized in a way that its config.json does not tell",
            )
        return Float(known)

    def item(self, name: str, index: int) -> Array:
        """Return one item along a tensor's first axis, reading no more than that."""
        shard = self.folder.shard_of(name)
        info = shard.tensors[name]
        if len(info.shape) < 2 or not 0 <= index < info.shape[0]:
            raise FolderError(
                f"{self.folder.path}: {name} has shape {info.shape}, expected an item {index}",
                "config.json and the weights do not belong together",
            )
        size = info.nbytes // info.shape[0]
        span = (index * size, (index + 1) * size)
        return part(shard, name, info.shape[1:], span, mapped=self.mapped)


class _Stack:
    """A tensor that holds the weights of all experts; only the one asked for is read."""

    def __init__(self, contents: Contents, name: str) -> None:
        self._contents, self._name = contents, name

    def __getitem__(self, key: int | slice) -> NDArray[Any]:
        if isinstance(key, int):
            return self._contents.item(self._name, key).data
        return self._contents.array(self._name).data[key]

    @property
    def T(self) -> NDArray[Any]:  # noqa: N802 (its name in numpy)
        return self._contents.array(self._name).data.T
