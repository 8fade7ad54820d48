"""Integers with a scale and a zero point for each group of inputs: what GPTQ and AWQ store."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.formats.bits import packed
from whet.formats.spec import Coded, Format, parse
from whet.store.array import Array
from whet.store.sources.source import SCALE_SUFFIX, Bytes, Numbers, Quantized


@dataclass(frozen=True, slots=True)
class GridWeight(Quantized):
    """A weight `(code - zero) * scale`, whose codes are stored (in, out)."""

    bits: int
    group: int  # inputs that share a scale

    @abstractmethod
    def codes(self) -> Bytes:
        """Return the codes, (out, in)."""

    @abstractmethod
    def zeros(self) -> Bytes:
        """Return the zero points, (groups, out)."""

    @abstractmethod
    def scales(self) -> Array:
        """Return the scales, (groups, out)."""

    def order(self) -> NDArray[np.int64]:
        """Return the group of each input."""
        return np.arange(self.shape[1]) // self.group

    def dense(self) -> Numbers:
        """Return the values; a code has at most 8 bits and a scale at most 24, f32 holds both."""
        group = self.order()
        found = self.codes().astype(np.float32)
        found -= self.zeros().T.astype(np.float32)[:, group]
        found *= np.ascontiguousarray(self.scales().float32().T)[:, group]
        return found

    def format(self) -> Format | None:
        """Return the integers' format; None where groups are not runs of inputs (act-order)."""
        scale = SCALE_SUFFIX.get(self.scales().dtype)
        if scale is None or not np.array_equal(self.order(), GridWeight.order(self)):
            return None
        affine = "" if np.all(self.zeros() == 1 << (self.bits - 1)) else "-affine"
        grouping = "channel" if self.group >= self.shape[1] else f"g{self.group}"
        return parse(f"int{self.bits}-{grouping}{affine}{scale}")

    def plane(self, name: str) -> NDArray[Any]:
        """Return a plane; both pack codes as little-endian bit streams, in other directions."""
        if name == "codes":
            return packed(self.codes(), self.bits)
        if name == "zero":
            return np.ascontiguousarray(packed(self.zeros(), self.bits).T)
        return np.ascontiguousarray(self.scales().data.T)


def grid_name(bits: int, group: int) -> str:
    """Return the name of integers in groups, without what a scale is stored in."""
    return str(Coded(parse(f"int{bits}-channel").element, group if group > 0 else "channel"))  # pyright: ignore[reportAttributeAccessIssue] (it is coded)
