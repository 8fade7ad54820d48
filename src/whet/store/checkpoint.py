"""The tensors of a folder as torch sees them, whatever dialect they are written in."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from whet.base.errors import FolderError
from whet.formats.activation import Activation
from whet.formats.weight import Weight
from whet.store.dialects import reader_of
from whet.store.dialects.dialect import FLOATS, Held, expect_shape
from whet.store.dtypes import DTYPES
from whet.store.folder import Folder
from whet.store.scheme import Place


class Checkpoint:
    """A folder as a source of tensors and weights.

    `mapped` reads through a memory map (the runtime: pages come when touched, and are shared);
    otherwise by plain reads (the sweep: what is dropped is gone).
    Law: both give the same tensors.
    """

    def __init__(self, folder: Folder, *, mapped: bool = False) -> None:
        self.folder = folder
        self.mapped = mapped
        self.config: Mapping[str, Any] = folder.config
        held = Held(folder.tensors.keys(), self.raw_tensor, str(folder.path))
        self._reader = reader_of(folder.config.get("quantization_config"), held)

    def names(self) -> Collection[str]:
        """Return the names of all stored tensors."""
        return self.folder.tensors.keys()

    def raw_tensor(self, name: str) -> Tensor:
        """Return a tensor as it is stored."""
        shard = self.folder.shard_of(name)
        info = shard.tensors[name]
        return self._tensor(name, info.dtype, info.shape, 0, info.nbytes)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that is no linear weight (a norm gain, a bias), in its stored dtype."""
        return self.raw_tensor(name)

    def weight(self, site: Place) -> Weight:
        """Return the weight of a site, oriented (out, in) whatever the storage."""
        return self._reader.weight(site) or self._plain(site)

    def activation(self, site: Place) -> tuple[Activation, Tensor | None] | None:
        """Return how the input of a site is quantized, and its static scale, or None."""
        return self._reader.activation(site)

    def _plain(self, site: Place) -> Weight:
        """Return a weight of plain numbers; of experts stored together only one is read."""
        apart = site.tensor == f"{site.module}.weight"
        stored = self.raw_tensor(site.tensor) if apart else _Stack(self, site.tensor)
        value: Tensor = site.oriented(stored)
        expect_shape(f"{self.folder.path}: {site.tensor}", tuple(value.shape), site.shape)
        value = value.float() if value.dtype == torch.float64 else value
        if value.dtype not in FLOATS:
            raise FolderError(
                f"{self.folder.path}: {site.tensor} is {value.dtype}, expected a float",
                "the folder may be quantized in a way that its config.json does not tell",
            )
        return Weight(FLOATS[value.dtype], {"value": value.contiguous()}, site.shape)

    def part(self, name: str, index: int) -> Tensor:
        """Return one item along a tensor's first axis, reading no more than that."""
        info = self.folder.shard_of(name).tensors[name]
        if len(info.shape) < 2 or not 0 <= index < info.shape[0]:
            raise FolderError(
                f"{self.folder.path}: {name} has shape {info.shape}, expected an item {index}",
                "config.json and the weights do not belong together",
            )
        size = info.nbytes // info.shape[0]
        return self._tensor(name, info.dtype, info.shape[1:], index * size, (index + 1) * size)

    def _tensor(
        self, name: str, dtype: str, shape: tuple[int, ...], start: int, stop: int
    ) -> Tensor:
        if start == stop:
            return torch.empty(shape, dtype=DTYPES[dtype])
        shard = self.folder.shard_of(name)
        data = shard.map(name)[start:stop] if self.mapped else shard.read(name, start, stop)
        return torch.frombuffer(data, dtype=DTYPES[dtype]).reshape(shape)


class _Stack:
    """A tensor that holds the weights of all experts; only the one asked for is read."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint, self._name = checkpoint, name

    def __getitem__(self, key: int | slice) -> Tensor:
        if isinstance(key, int):
            return self._checkpoint.part(self._name, key)
        return self._checkpoint.raw_tensor(self._name)[key]

    @property
    def T(self) -> Tensor:  # noqa: N802 (its name in torch)
        return self._checkpoint.raw_tensor(self._name).T
