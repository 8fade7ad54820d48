"""Layers of torch whose weight is held in a format of whet and decoded when it is read.

A layer keeps its class's own `forward`, so everything that a class adds (the scale of Gemma's
embedding, the transposed product of GPT-2) stays as it is; only `weight` is not stored any more.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from whet.formats.activate import quantized
from whet.formats.spec import Shape
from whet.formats.weight import Weight
from whet.store.dialects.dialect import input_layout
from whet.store.dialects.whet import plane_name
from whet.store.dtypes import DTYPES
from whet.store.scheme import Scheme


class Compressed(nn.Module):
    """Planes as buffers, and `weight` as what they mean.

    Law: moving to a device moves the planes; converting to a dtype leaves them alone.
    """

    scheme: Scheme
    shape: Shape
    transposed: bool
    dtype: torch.dtype

    @property
    def held(self) -> Weight:
        """The weight as a value of whet."""
        names = self.scheme.format.planes(self.shape)
        planes = {name: self.get_buffer(plane_name(name)) for name in names}
        return Weight(self.scheme.format, planes, self.shape)

    @property
    def weight(self) -> Tensor:
        """The decoded weight, as this layer's class stores it."""
        dense = self.held.dense().to(self.dtype)
        return dense.T if self.transposed else dense

    @property
    def input_scale_of_whet(self) -> Tensor | None:
        """The fixed scale and zero point of the input, or None."""
        parts = [self.get_buffer(name).float() for name in input_layout(self.scheme)]
        return torch.cat(parts) if parts else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:  # noqa: FBT001, FBT002
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self


class CompressedLinear(Compressed):
    """A linear layer, GPT-2's transposed one, or a head tied to an embedding."""

    def forward(self, x: Tensor) -> Tensor:
        """Quantize the input if asked, then do what the layer's class does."""
        self.dtype = x.dtype
        if self.scheme.activation is not None:
            x = quantized(x, self.scheme.activation, self.input_scale_of_whet)
        return super().forward(x)


class CompressedEmbedding(Compressed):
    """An embedding: only the rows that are looked up are decoded."""

    _rows: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The rows being looked up, or the whole table."""
        return self.held.dense().to(self.dtype) if self._rows is None else self._rows

    def forward(self, ids: Tensor) -> Tensor:
        """Look up, by way of a table of the rows that occur."""
        present, position = ids.unique(return_inverse=True)
        padding = self.padding_idx
        self._rows, self.padding_idx = self._decoded(present), None
        try:
            return super().forward(position)
        finally:
            self._rows, self.padding_idx = None, padding

    def _decoded(self, rows: Tensor) -> Tensor:
        """Return some rows of the table, decoding the whole table only if that is less work."""
        held = self.held
        if len(rows) > held.shape[0] // 8:
            return held.dense()[rows].to(self.dtype)
        found = [held.rows(row, row + 1).dense() for row in rows.tolist()]
        return torch.cat(found).to(self.dtype)


class TiedHead(nn.Module):
    """A head that multiplies by the table of a compressed embedding."""

    table: tuple[CompressedEmbedding]  # a tuple, so that torch does not count it as its own

    @property
    def weight(self) -> Tensor:
        """The decoded table."""
        return self.table[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Quantize the input if the table's scheme asks for it, then do what the class does."""
        table = self.table[0]
        table.dtype = x.dtype
        if table.scheme.activation is not None:
            x = quantized(x, table.scheme.activation, table.input_scale_of_whet)
        return super().forward(x)


def compress_module(module: nn.Module, scheme: Scheme) -> None:
    """Take the weight of an empty layer away and give it planes to be filled instead."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    embeds, transposed = (
        isinstance(module, nn.Embedding),
        not isinstance(module, nn.Linear | nn.Embedding),
    )
    rows, cols = weight.T.shape if transposed else weight.shape
    del module.weight
    module.__class__ = _joined(CompressedEmbedding if embeds else CompressedLinear, type(module))
    assert isinstance(module, Compressed)
    module.scheme, module.shape, module.transposed = scheme, (rows, cols), transposed
    module.dtype = weight.dtype
    for name, plane in scheme.format.planes((rows, cols)).items():
        _empty(module, plane_name(name), plane.dtype, plane.shape)
    for name, (dtype, shape) in input_layout(scheme).items():
        _empty(module, name, dtype, shape)


def tie_module(head: nn.Module, embedding: CompressedEmbedding) -> None:
    """Make a head use the table of a compressed embedding."""
    del head.weight
    head.__class__ = _joined(TiedHead, type(head))
    head.__dict__["table"] = (embedding,)


def _empty(module: nn.Module, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    module.register_buffer(name, torch.empty(shape, dtype=DTYPES[dtype], device="meta"))


@cache
def _joined(first: type[nn.Module], second: type[nn.Module]) -> type[Any]:
    """Return a class that has the weight of the first and otherwise behaves as the second."""
    return type(f"{first.__name__}{second.__name__}", (first, second), {})
