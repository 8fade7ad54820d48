"""Plain numbers: what every reader of Hugging Face folders understands."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from whet.formats.spec import Float, Format
from whet.store.array import Planar
from whet.store.dialects.dialect import (
    Dialect,
    Held,
    Input,
    Layout,
    Reader,
    plain_layout,
    plain_tensors,
)
from whet.store.scheme import Place, Scheme

if TYPE_CHECKING:
    from torch import Tensor

    from whet.formats.weight import Weight


class PlainReader(Reader):
    """A folder without compressed weights."""

    def format(self, place: Place) -> Format | None:
        """Return None."""
        return None

    def weight(self, place: Place) -> Planar | None:
        """Return None."""
        return None

    def activation(self, place: Place) -> Input | None:
        """Return None."""
        return None


class Plain(Dialect):
    """No `quantization_config`; weights are f32, f16 or bf16."""

    name = "plain"

    def refuses(self, place: Place, scheme: Scheme) -> str | None:
        """Return why not: anything but plain numbers."""
        return None if scheme.is_plain else f"{place.module}: {scheme} is not a plain number"

    def config(
        self,
        schemes: Mapping[str, Scheme],
        skipped: Collection[str],
        embedding: Place | None = None,
    ) -> dict[str, Any] | None:
        """Return None: loaders need not be told."""
        return None

    def layout(self, place: Place, scheme: Scheme) -> Layout:
        """Return the one tensor."""
        assert isinstance(scheme.format, Float)
        return plain_layout(place, scheme.format)

    def tensors(
        self,
        place: Place,
        weight: "Weight",
        scheme: Scheme | None,
        scale: "Tensor | None" = None,
    ) -> "dict[str, Tensor]":
        """Return the one tensor."""
        return plain_tensors(place, weight)

    def reader(self, config: Mapping[str, Any], held: Held) -> Reader:
        """Return a reader that finds nothing compressed."""
        return PlainReader()


PLAIN = Plain()
