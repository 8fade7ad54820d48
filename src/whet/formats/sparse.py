"""Formats that keep some of the weights alone: which, and their numbers in another format."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.base.errors import FormatError
from whet.formats import spec
from whet.formats.codec import Codec, Planes, require_finite
from whet.formats.pack import pack, unpack
from whet.formats.pattern import Pattern, Within, numbered
from whet.formats.spec import Shape

FEW = 8  # items of a line up to which each is compared with every other


class Sparse(Codec):
    """A mask, and what it keeps, in the inner format; what it does not keep is exactly zero."""

    def __init__(self, format_: spec.Sparse, inner: Codec) -> None:
        self.format = format_
        self.sparse = format_
        self.inner = inner
        self.pattern = format_.pattern
        self.bits = format_.inner.element.bits if isinstance(format_.inner, spec.Coded) else 0

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Keep the weights of greatest magnitude, and write these by the inner format's own rule."""
        require_finite(weight)
        mask = kept(weight.abs(), self.pattern)
        return self.write(self.inner.encode(weight * mask), mask)

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Read what is kept as float32, and zeros."""
        inner, mask = self.whole(planes, shape)
        found = self.inner.decode(inner, shape)
        return found.masked_fill_(~mask, 0.0)

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows; where rows keep different counts, of what these keep."""
        name = "codes" if self.bits else "value"
        stored = planes[name]
        if self.pattern.of_row(shape[1]) is not None:
            part = stored[start:stop]
        else:
            before = unpack(planes["mask"][:stop], 1, shape[1]).sum(1).cumsum(0)
            first = int(before[start - 1]) if start else 0
            part = self._span(stored, first, int(before[-1]) if stop else 0)
        others = {n: p for n, p in planes.items() if n not in ("mask", name)}
        if others:
            placed = self.inner.rows(others | {name: stored}, shape, start, stop)
            others = {n: placed[n] for n in others}
        return {"mask": planes["mask"][start:stop], name: part, **others}

    def mask(self, planes: Planes, shape: Shape) -> Bool[Tensor, "out in"]:
        """Return which weights are kept."""
        return unpacked_mask(planes["mask"], self.pattern, shape[1])

    def whole(
        self, planes: Planes, shape: Shape
    ) -> tuple[dict[str, Tensor], Bool[Tensor, "out in"]]:
        """Return planes of the inner format for all weights, and which of these are kept.

        Law: `write` makes the same planes of them again.
        """
        mask = self.mask(planes, shape)
        self._check(planes, mask)
        return self._widened(planes, mask), mask

    def write(self, planes: Planes, mask: Bool[Tensor, "out in"]) -> dict[str, Tensor]:
        """Return the planes of a matrix written in the inner format, of which `mask` stays.

        Law: decodes to what the inner format decodes to, where it is kept.
        """
        lines = len(mask) if self.pattern.of_row(mask.shape[1]) is not None else 1
        found = {"mask": packed_mask(mask, self.pattern)} | dict(planes)
        if self.bits:
            codes = unpack(planes["codes"], self.bits, mask.shape[1])
            found["codes"] = pack(codes[mask].reshape(lines, -1), self.bits)
        else:
            found["value"] = planes["value"].reshape(mask.shape)[mask].reshape(lines, -1)
        return found

    def _check(self, planes: Planes, mask: Bool[Tensor, "out in"]) -> None:
        """Raise FormatError unless there are as many numbers as the mask keeps."""
        row, stored = self.pattern.of_row(mask.shape[1]), planes["codes" if self.bits else "value"]
        held = stored.shape[1] * 8 // self.bits if self.bits else stored.shape[1]
        counts = mask.sum(1) if row is not None else mask.sum().reshape(1)
        expected = int(counts.max()) if row is None else row
        if (counts != expected).any() or not expected <= held < expected + 8:
            raise FormatError(
                f"a mask of {self.format} keeps {int(counts.min())} to {int(counts.max())} weights, "
                f"expected {expected}, of which {held} are stored",
                "the folder is damaged: fetch it again, or compress anew",
            )

    def _widened(self, planes: Planes, mask: Bool[Tensor, "out in"]) -> dict[str, Tensor]:
        """Return planes of the inner format; what they say of weights that are not kept is no matter."""
        found = {name: plane for name, plane in planes.items() if name != "mask"}
        if not self.bits:
            value = planes["value"].new_zeros(mask.shape)
            return found | {"value": value.masked_scatter_(mask, planes["value"].reshape(-1))}
        stored = planes["codes"]
        count = int(mask.sum()) // max(len(stored), 1)
        codes = torch.zeros(mask.shape, dtype=torch.uint8, device=mask.device)
        codes.masked_scatter_(mask, unpack(stored, self.bits, count).reshape(-1))
        return found | {"codes": pack(codes, self.bits)}

    def _span(self, stored: Tensor, first: int, last: int) -> Tensor:
        """Return weights `first` to `last` of a stream."""
        if not self.bits:
            return stored[:, first:last]
        low = first // 8 * 8  # eight codes fill whole bytes
        codes = unpack(stored[:, low * self.bits // 8 :], self.bits, last - low)
        return pack(codes[:, first - low :].contiguous(), self.bits)


def kept(scores: Float[Tensor, "out in"], pattern: Pattern) -> Bool[Tensor, "out in"]:
    """Return the mask of the greatest scores that a pattern allows; of equal ones the first.

    Law: the counts are exact, in every group, row or matrix that the pattern speaks of.
    """
    rows, inputs = scores.shape
    if isinstance(pattern, Within):
        filled = torch.nn.functional.pad(scores, (0, -inputs % pattern.group), value=-torch.inf)
        groups = filled.reshape(-1, pattern.group)
        return greatest(groups, pattern.kept).reshape(rows, -1)[:, :inputs].contiguous()
    count = pattern.of_row(inputs)
    if count is not None:
        return greatest(scores, count)
    return greatest(scores.reshape(1, -1), pattern.of_matrix(rows, inputs)).reshape(rows, inputs)


def greatest(scores: Float[Tensor, "lines items"], count: int) -> Bool[Tensor, "lines items"]:
    """Return the mask of the `count` greatest of each line; of equal ones the first."""
    width = scores.shape[1]
    if not 0 < count < width:
        return torch.full(scores.shape, count > 0, dtype=torch.bool)
    if width <= FEW:  # those that come before each one are counted
        before = torch.zeros(scores.shape, dtype=torch.uint8)
        for j in range(width):
            other = scores[:, j : j + 1]
            before[:, :j] += other > scores[:, :j]
            before[:, j + 1 :] += other >= scores[:, j + 1 :]
        return before < count
    least = scores.kthvalue(width - count + 1, dim=1, keepdim=True).values
    above, equal = scores > least, scores == least
    return above | (equal & (equal.cumsum(1) <= count - above.sum(1, keepdim=True)))


def packed_mask(mask: Bool[Tensor, "out in"], pattern: Pattern) -> Tensor:
    """Write a mask as the plane of its pattern. Law: `unpacked_mask` undoes it."""
    if not isinstance(pattern, Within) or not pattern.number_bits:
        return pack(mask.to(torch.uint8), 1)
    inputs, group = mask.shape[1], pattern.group
    filled = torch.nn.functional.pad(mask, (0, -inputs % group)).unflatten(1, (-1, group))
    filled = filled.to(torch.uint8)
    if rest := inputs % group:  # what lies beyond the row counts as kept, for whole patterns
        filled[:, -1, rest : rest + pattern.kept - min(rest, pattern.kept)] = 1
    places = torch.tensor([1 << place for place in range(group)], dtype=torch.uint8)
    bits = (filled * places).sum(2).long()
    number = torch.zeros(1 << group, dtype=torch.uint8)
    known = numbered(pattern)
    number[torch.tensor(known)] = torch.arange(len(known), dtype=torch.uint8)
    return pack(number[bits], pattern.number_bits)


def unpacked_mask(plane: Tensor, pattern: Pattern, inputs: int) -> Bool[Tensor, "out in"]:
    """Undo `packed_mask`."""
    if not isinstance(pattern, Within) or not pattern.number_bits:
        return unpack(plane, 1, inputs).bool()
    groups = -(-inputs // pattern.group)
    known = numbered(pattern)
    numbers = unpack(plane, pattern.number_bits, groups).long().clamp_(max=len(known) - 1)
    bits = torch.tensor(known, dtype=torch.uint8)[numbers]
    places = torch.arange(pattern.group, dtype=torch.uint8)
    return ((bits.unsqueeze(2) >> places) & 1).bool().flatten(1)[:, :inputs].contiguous()
