"""The tensors of a folder as torch sees them, whatever dialect they are written in."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from whet.base.errors import FolderError
from whet.formats.activation import Activation
from whet.formats.spec import Float, Shape
from whet.formats.weight import Weight
from whet.store.dtypes import DTYPES
from whet.store.folder import Folder

FLOATS: Mapping[torch.dtype, Float] = {
    torch.float32: Float("F32"),
    torch.float16: Float("F16"),
    torch.bfloat16: Float("BF16"),
}


@runtime_checkable
class Place(Protocol):
    """What of a site the store needs: `whet.model.site.Site` has it."""

    @property
    def module(self) -> str:
        """The checkpoint's name of the module."""
        ...

    @property
    def shape(self) -> Shape:
        """(out, in)."""
        ...

    @property
    def transposed(self) -> bool:
        """Whether the checkpoint stores (in, out)."""
        ...


class Checkpoint:
    """A folder as a source of tensors and weights.

    `mapped` reads through a memory map (the runtime: pages come when touched, and are shared);
    otherwise by plain reads (the sweep: what is dropped is gone).
    """

    def __init__(self, folder: Folder, *, mapped: bool = False) -> None:
        self.folder = folder
        self.mapped = mapped
        self.config: Mapping[str, Any] = folder.config

    def names(self) -> Collection[str]:
        """Return the names of all stored tensors."""
        return self.folder.tensors.keys()

    def raw_tensor(self, name: str) -> Tensor:
        """Return a tensor as it is stored."""
        shard = self.folder.shard_of(name)
        info = shard.tensors[name]
        dtype = DTYPES[info.dtype]
        if not info.nbytes:
            return torch.empty(info.shape, dtype=dtype)
        data = shard.map(name) if self.mapped else shard.read(name)
        return torch.frombuffer(data, dtype=dtype).reshape(info.shape)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that is no linear weight (a norm gain, a bias), in its stored dtype."""
        return self.raw_tensor(name)

    def weight(self, site: Place) -> Weight:
        """Return the weight of a site, oriented (out, in) whatever the storage."""
        return self._plain(site)

    def activation(self, site: Place) -> tuple[Activation, Tensor | None] | None:
        """Return how the input of a site is quantized, and its static scale, or None."""
        return None

    def _plain(self, site: Place) -> Weight:
        value = self.raw_tensor(f"{site.module}.weight")
        value = value.T.contiguous() if site.transposed else value
        if tuple(value.shape) != site.shape:
            raise self._misfit(site, tuple(value.shape))
        if value.dtype == torch.float64:
            value = value.float()
        if value.dtype not in FLOATS:
            raise FolderError(
                f"{self.folder.path}: {site.module}.weight is {value.dtype}, expected a float",
                "the folder may be quantized in a way that its config.json does not tell",
            )
        return Weight(FLOATS[value.dtype], {"value": value}, site.shape)

    def _misfit(self, site: Place, found: tuple[int, ...]) -> FolderError:
        return FolderError(
            f"{self.folder.path}: {site.module}.weight has shape {found}, expected {site.shape}",
            "config.json and the weights do not belong together",
        )
