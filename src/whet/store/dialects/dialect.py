"""What a dialect is: a way to lay compressed weights out in a Hugging Face folder.

Reading needs no torch; writing does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from whet.base.errors import FolderError
from whet.formats.activation import Activation
from whet.formats.spec import Float, Format
from whet.store.array import Array, Planar
from whet.store.scheme import Place, Scheme
from whet.store.shard import WIDTHS

if TYPE_CHECKING:
    from torch import Tensor

    from whet.formats.weight import Weight

Layout = dict[str, tuple[str, tuple[int, ...]]]  # tensor name -> (dtype of safetensors, shape)
Input = tuple[Activation, Array | None]


@dataclass(frozen=True, slots=True)
class Held:
    """A folder's tensors, as a dialect reads them."""

    names: Collection[str]
    raw: Callable[[str], Array]
    where: str

    def checked(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return a tensor, or raise FolderError if it is not as expected."""
        if name not in self.names:
            raise FolderError(f"{self.where} has no tensor {name}", "the folder is incomplete")
        array = self.raw(name)
        if array.dtype != dtype or array.shape != shape:
            raise FolderError(
                f"{self.where}: {name} is {array.dtype}{list(array.shape)}, "
                f"expected {dtype}{list(shape)}",
                "config.json and the weights do not belong together",
            )
        return array


class Reader(ABC):
    """A folder of some dialect, understood.

    Law: `format(place)` is the format of `weight(place)`.
    """

    @abstractmethod
    def format(self, place: Place) -> Format | None:
        """Return the format of a compressed weight, which is not read, or None for plain numbers."""

    @abstractmethod
    def weight(self, place: Place) -> Planar | None:
        """Return a compressed weight, or None where the place holds plain numbers."""

    @abstractmethod
    def activation(self, place: Place) -> Input | None:
        """Return how the input is quantized, with its scale where that is fixed."""


class Dialect(ABC):
    """A layout on disk.

    Law: `reader(config(…)).weight(place)` is the weight that `tensors` was given, plane for plane.
    Law: `tensors` has the dtypes and shapes of `layout`.
    """

    name: str

    @abstractmethod
    def refuses(self, place: Place, scheme: Scheme) -> str | None:
        """Return why a module cannot be written so, or None."""

    @abstractmethod
    def config(
        self,
        schemes: Mapping[str, Scheme],
        skipped: Collection[str],
        embedding: Place | None = None,
    ) -> dict[str, Any] | None:
        """Return the `quantization_config` of config.json, or None if there is to be none.

        `schemes` by module; `skipped` are the modules that stay as they are; `embedding` is the
        model's, where it has one that `schemes` may name.
        """

    @abstractmethod
    def layout(self, place: Place, scheme: Scheme) -> Layout:
        """Return the tensors of a module, without their data."""

    @abstractmethod
    def tensors(
        self,
        place: Place,
        weight: "Weight",
        scheme: Scheme | None,
        scale: "Tensor | None" = None,
    ) -> "dict[str, Tensor]":
        """Return the tensors of a module; a `scheme` of None writes plain numbers.

        `scale` is what `whet.formats.activate.static_scale` returned, where the input has one.
        """

    @abstractmethod
    def reader(self, config: Mapping[str, Any], held: Held) -> Reader:
        """Understand a `quantization_config` of this dialect."""

    def nbytes(self, place: Place, scheme: Scheme) -> int:
        """Return the exact size of a module's tensors [byte]."""
        layout = self.layout(place, scheme).values()
        return sum(prod(shape) * WIDTHS[dtype] for dtype, shape in layout)


def input_layout(scheme: Scheme) -> Layout:
    """Return the tensors, by local name, that a fixed input scale needs: a scale and a zero point.

    Within whet both are numbers of one tensor, as `whet.formats.activate.static_scale` returns it.
    """
    if scheme.activation is None or not scheme.activation.static:
        return {}
    zero: Layout = {"input_zero_point": ("I8", (1,))} if scheme.activation.affine else {}
    return {"input_scale": ("F32", (1,))} | zero


def input_tensors(scheme: Scheme, scale: "Tensor | None") -> "dict[str, Tensor]":
    """Return the tensors of `input_layout`."""
    import torch

    layout = input_layout(scheme)
    if not layout:
        return {}
    assert scale is not None, "a static activation has a scale"
    found = {"input_scale": scale[:1].to(torch.float32)}
    return found | ({"input_zero_point": scale[1:].to(torch.int8)} if len(layout) == 2 else {})


def input_scale(scheme: Scheme, module: str, held: Held) -> Array | None:
    """Return the fixed scale of a module's input, with its zero point, or None."""
    layout = input_layout(scheme).items()
    return joined([held.checked(f"{module}.{name}", *expected) for name, expected in layout])


def joined(parts: Sequence[Array]) -> Array | None:
    """Return a scale and a zero point as numbers of one array, or None where there are none."""
    return Array("F32", np.concatenate([part.float32() for part in parts])) if parts else None


def plain_tensors(place: Place, weight: "Weight") -> "dict[str, Tensor]":
    """Return a weight of plain numbers as any reader expects it."""
    value = weight.planes["value"] if isinstance(weight.format, Float) else weight.dense()
    oriented = value.T if place.transposed else value
    return {f"{place.module}.weight": oriented.contiguous()}


def plain_layout(place: Place, format_: Float) -> Layout:
    """Return the layout of `plain_tensors`."""
    rows, cols = place.shape
    shape = (cols, rows) if place.transposed else (rows, cols)
    return {f"{place.module}.weight": (format_.dtype, shape)}


def expect_shape(where: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise FolderError unless a stored shape is the expected one."""
    if found != expected:
        raise FolderError(
            f"{where} has shape {found}, expected {expected}",
            "config.json and the weights do not belong together",
        )
