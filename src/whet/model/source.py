"""Where weights come from: a folder on disk (`store`), or tensors in memory."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from whet.base.errors import FolderError
from whet.formats.activation import Activation
from whet.formats.spec import Float
from whet.formats.weight import Weight
from whet.model.site import Site

DTYPES: dict[torch.dtype, Literal["F32", "F16", "BF16"]] = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


@runtime_checkable
class Source(Protocol):
    """A checkpoint, whatever its dialect."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` says."""
        ...

    def names(self) -> Collection[str]:
        """Return the names of all stored tensors."""
        ...

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that is no linear weight, as stored."""
        ...

    def weight(self, site: Site) -> Weight:
        """Return a linear weight, (out, in), however it is stored."""
        ...

    def activation(self, site: Site) -> tuple[Activation, Tensor | None] | None:
        """Return how the input of a linear is quantized, and its scale where that is fixed."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """A source of tensors by name."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def names(self) -> Collection[str]:
        """Return the names of all tensors."""
        return self.tensors.keys()

    def tensor(self, name: str) -> Tensor:
        """Return a tensor."""
        if name not in self.tensors:
            raise FolderError(f"the checkpoint holds no tensor {name!r}")
        return self.tensors[name]

    def weight(self, site: Site) -> Weight:
        """Return a linear weight, (out, in)."""
        return plain(site, self.tensor(site.tensor))

    def activation(self, site: Site) -> tuple[Activation, Tensor | None] | None:
        """Return `None`: inputs are not quantized."""
        return None


def plain(site: Site, stored: Tensor) -> Weight:
    """Return the weight of a site from the tensor of plain numbers that holds it."""
    value: Tensor = site.oriented(stored)
    if tuple(value.shape) != site.shape or value.dtype not in DTYPES:
        raise FolderError(
            f"{site.tensor} is {tuple(stored.shape)} {stored.dtype}; "
            f"expected {site.shape} in float32, float16 or bfloat16"
        )
    return Weight(Float(DTYPES[value.dtype]), {"value": value.contiguous()}, site.shape)
