"""The tensors of a folder as torch sees them, whatever dialect they are written in."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from whet.formats.activation import Activation
from whet.formats.weight import Weight
from whet.store.contents import Contents
from whet.store.dtypes import tensor_of, weight_of
from whet.store.folder import Folder
from whet.store.scheme import Place


class Checkpoint:
    """A folder as a source of tensors and weights: `Contents`, in torch's words.

    Law: `mapped` or not gives the same tensors.
    """

    def __init__(self, folder: Folder, *, mapped: bool = False) -> None:
        self.contents = Contents(folder, mapped=mapped)
        self.folder = folder
        self.config: Mapping[str, Any] = folder.config

    def names(self) -> Collection[str]:
        """Return the names of all stored tensors."""
        return self.contents.names()

    def raw_tensor(self, name: str) -> Tensor:
        """Return a tensor as it is stored."""
        return tensor_of(self.contents.array(name))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that is no linear weight (a norm gain, a bias), in its stored dtype."""
        return self.raw_tensor(name)

    def weight(self, site: Place) -> Weight:
        """Return the weight of a site, oriented (out, in) whatever the storage."""
        return weight_of(self.contents.weight(site))

    def activation(self, site: Place) -> tuple[Activation, Tensor | None] | None:
        """Return how the input of a site is quantized, and its static scale, or None."""
        found = self.contents.activation(site)
        if found is None:
            return None
        activation, scale = found
        return activation, None if scale is None else tensor_of(scale)
