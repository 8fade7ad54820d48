"""Formats of codes with scales: what all of them share, whatever a code means."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from whet.base.errors import FormatError, NumericalError, RecipeError
from whet.formats import scales
from whet.formats.codec import Params, Planes, Scalar, Search, require_finite
from whet.formats.groups import Groups, cut
from whet.formats.pack import pack, unpack
from whet.formats.ranges import Store
from whet.formats.spec import Coded, Shape

PART = 1 << 20  # weights rounded together [weight]; bounds the memory of whole matrices


class Scaled(Scalar):
    """A scalar format: `value == scale * unit`, the unit being what the element type says."""

    def __init__(self, format_: Coded) -> None:
        self.format = format_
        self.coded = format_
        self.bits = format_.element.bits
        self.rowwise = format_.grouping != "tensor" and format_.scale != "e4m3"

    # what an element type says

    @abstractmethod
    def near(
        self,
        ratio: Float[Tensor, "rows ..."],
        zero: Float[Tensor, "..."] | None,
        levels: Float[Tensor, "#rows codes"] | None = None,
    ) -> Float[Tensor, "rows ..."]:
        """Return the units nearest to `weight / scale`; may write over `ratio`.

        `zero` broadcasts against it. Where each row has its own levels, rows come first.
        """

    @abstractmethod
    def _code(
        self,
        units: Float[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> UInt8[Tensor, "rows cols"]:
        """Return the codes of units."""

    @abstractmethod
    def _unit(
        self,
        codes: UInt8[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> Float[Tensor, "rows cols"]:
        """Undo `_code`."""

    @abstractmethod
    def _fit(
        self, weight: Float[Tensor, "out in"], search: Search, importance: Tensor | None
    ) -> Params:
        """Choose parameters for a finite matrix."""

    @property
    @abstractmethod
    def top(self) -> float:
        """The magnitude of the nearer end of the levels, in units."""

    # the contract

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write the nearest member with the parameters of least squared error."""
        params = self.fit(weight)
        return self.write(self.snap(weight, params, _all(weight)), params)

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Read planes as float32."""
        return self.read(planes, shape)[0]

    def fit(
        self,
        weight: Float[Tensor, "out in"],
        search: Search = Search(),
        importance: Float[Tensor, "in"] | None = None,
    ) -> Params:
        """Choose parameters for a matrix; `importance` counts under the rule `hessian` alone."""
        if not weight.numel():
            raise FormatError(f"a weight of shape {tuple(weight.shape)} is empty")
        require_finite(weight)
        return self._fit(weight, search, _checked(importance, search))

    def snap(
        self, weight: Float[Tensor, "out cols"], params: Params, columns: Int64[Tensor, "cols"]
    ) -> Float[Tensor, "out cols"]:
        """Return the nearest representable values, in float32."""
        if weight.numel() > PART and len(columns) > 1:
            parts = _cut_rows(weight.shape)
            return torch.cat([self.snap(weight[r], part(params, r), columns) for r in parts])
        scale = self.spread(params.scale, columns)
        zero = None if params.zero is None else self.spread(params.zero, columns)
        return self.near((weight / scale).float(), zero, params.levels).mul_(scale)

    def unit(self, values: Float[Tensor, "out in"], params: Params) -> Float[Tensor, "out in"]:
        """Return representable values without their scale: `values == scale * unit`."""
        columns = _all(values)
        units = torch.empty(values.shape, device=values.device)
        for r in _cut_rows(values.shape):
            mine = part(params, r)
            scale = self.spread(mine.scale, columns)
            zero = None if mine.zero is None else self.spread(mine.zero, columns)
            units[r] = self.near((values[r] / scale).float(), zero, mine.levels)
        return units

    def stored(
        self, scale: Float[Tensor, "#rows #groups"], params: Params
    ) -> Float[Tensor, "#rows #groups"]:
        """Round scales to the type they are stored in."""
        return scales.stored(self.coded.scale, scale.float(), params.extra.get("global"))

    def rescaled(
        self,
        values: Float[Tensor, "out in"],
        params: Params,
        scale: Float[Tensor, "#rows #groups"],
    ) -> tuple[Float[Tensor, "out in"], Params]:
        """Return the same codes under other scales, rounded to their stored type."""
        changed = Params(self.stored(scale, params), params.zero, params.levels, params.extra)
        columns = _all(values)
        return self.unit(values, params).mul_(self.spread(changed.scale, columns)), changed

    def write(self, values: Float[Tensor, "out in"], params: Params) -> dict[str, Tensor]:
        """Assemble the planes of representable values."""
        pieces = (
            pack(self.codes(values[r], part(params, r)), self.bits) for r in _cut_rows(values.shape)
        )
        planes = {
            "codes": torch.cat(list(pieces)),
            "scale": scales.to_plane(self.coded.scale, params.scale, params.extra),
        }
        if params.zero is not None:
            codes = params.zero.to(torch.uint8)
            planes["zero"] = pack(codes.T.contiguous(), self.bits).T.contiguous()
        return planes | self._write_extra(params)

    def read(self, planes: Planes, shape: Shape) -> tuple[Float[Tensor, "out in"], Params]:
        """Undo `write`."""
        params = self._read_params(planes, shape)
        columns = torch.arange(shape[1], device=params.scale.device)
        values = torch.empty(shape, device=params.scale.device)
        for r in _cut_rows(shape):
            mine = part(params, r)
            scale = self.spread(mine.scale, columns)
            zero = None if mine.zero is None else self.spread(mine.zero, columns)
            codes = unpack(planes["codes"][r], self.bits, shape[1])
            torch.mul(self._unit(codes, zero, mine.levels), scale, out=values[r])
        return values, params

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows."""
        own = self._by_row()
        kept = {name: p[start:stop] if name in own else p for name, p in planes.items()}
        if "zero" in planes and self.coded.grouping != "tensor":
            zero = unpack(planes["zero"].T.contiguous(), self.bits, shape[0])[:, start:stop]
            kept["zero"] = pack(zero.contiguous(), self.bits).T.contiguous()
        return kept

    def codes(self, values: Float[Tensor, "out in"], params: Params) -> UInt8[Tensor, "out in"]:
        """Return the codes of representable values."""
        columns = _all(values)
        codes = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
        for r in _cut_rows(values.shape):
            mine = part(params, r)
            zero = None if mine.zero is None else self.spread(mine.zero, columns)
            codes[r] = self._code(self.unit(values[r], mine), zero, mine.levels)
        return codes

    def choices(
        self, params: Params, columns: Int64[Tensor, "cols"]
    ) -> Iterator[Float[Tensor, "#rows #cols"]]:
        """Yield, code by code, the value that it stands for in these columns of each row."""
        scale = self.spread(params.scale, columns)
        zero = None if params.zero is None else self.spread(params.zero, columns)
        rows = max(len(scale), 0 if params.levels is None else len(params.levels))
        shape = (rows, 1 if zero is None else zero.shape[1])
        for code in range(2**self.bits):
            codes = torch.full(shape, code, dtype=torch.uint8)
            yield self._unit(codes, zero, params.levels) * scale

    # parameters

    def spread(
        self, of_groups: Float[Tensor, "#rows #groups"], columns: Int64[Tensor, "cols"]
    ) -> Float[Tensor, "#rows #cols"]:
        """Return for each column the parameter of its group."""
        if of_groups.shape[1] == 1:
            return of_groups
        assert isinstance(self.coded.grouping, int)
        return of_groups.index_select(1, columns // self.coded.grouping)

    def _groups(
        self, weight: Float[Tensor, "out in"], importance: Tensor | None
    ) -> Iterator[Groups]:
        """Yield the groups of a matrix, some rows at a time."""
        size, pooled = self.coded.group(weight.shape[1]), self.coded.grouping == "tensor"
        return cut(weight, size, importance, pooled=pooled)

    def _store(self, extra: Mapping[str, Tensor]) -> Store:
        """Return what rounds scales to their stored type."""
        return lambda scale: scales.stored(self.coded.scale, scale.float(), extra.get("global"))

    def _extra(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Return what is fixed for the whole matrix before its scales are."""
        if self.coded.scale != "e4m3":
            return {}
        return {"global": scales.global_scale(weight, self.top)}

    def _by_row(self) -> tuple[str, ...]:
        """Return the names of the planes that are cut by rows as they are."""
        return ("codes",) if self.coded.grouping == "tensor" else ("codes", "scale")

    def _write_extra(self, params: Params) -> dict[str, Tensor]:
        """Return the planes beside codes, scale and zero."""
        return dict(params.extra)

    def _read_params(self, planes: Planes, shape: Shape) -> Params:
        """Read everything but the codes."""
        extra = {name: planes[name] for name in ("global", "base") if name in planes}
        scale = scales.from_plane(self.coded.scale, planes["scale"], extra)
        zero = None
        if "zero" in planes:
            zero = unpack(planes["zero"].T.contiguous(), self.bits, scale.shape[0]).T.float()
        return Params(scale, zero, None, extra)


def part(params: Params, rows: slice) -> Params:
    """Return the parameters of some rows; what all rows share stays whole."""
    scale = _rows_of(params.scale, rows)
    assert scale is not None
    zero, levels = _rows_of(params.zero, rows), _rows_of(params.levels, rows)
    return Params(scale, zero, levels, params.extra)


def _rows_of(whole: Tensor | None, rows: slice) -> Tensor | None:
    return whole if whole is None or len(whole) == 1 else whole[rows]


def joined(parts: Sequence[Params]) -> Params:
    """Return the parameters of all rows from those of parts. Law: the inverse of `part`."""

    def of(some: Sequence[Tensor | None]) -> Tensor | None:
        held = [one for one in some if one is not None]
        return torch.cat(held) if held else None

    scale = of([one.scale for one in parts])
    assert scale is not None
    zero, levels = of([one.zero for one in parts]), of([one.levels for one in parts])
    return Params(scale, zero, levels, parts[0].extra)


def shares(codec: Scaled, params: Params) -> bool:
    """Return whether rows share scales, zero points or levels that solving may change."""
    one_table = params.levels is not None and len(params.levels) == 1
    return codec.coded.grouping == "tensor" or one_table or len(params.scale) == 1


def _all(weight: Float[Tensor, "out in"]) -> Int64[Tensor, "in"]:
    return torch.arange(weight.shape[1], device=weight.device)


def _cut_rows(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices of rows of at most `PART` weights, or single rows."""
    step = max(1, PART // max(shape[1], 1))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _checked(importance: Tensor | None, search: Search) -> Tensor | None:
    """Return the weights of the search: those given, under the rule that uses them."""
    if search.rule != "hessian":
        return None
    if importance is None:
        raise RecipeError(
            "the range rule 'hessian' needs the importance of the inputs, found none",
            "calibrate this step, or choose the rule mse",
        )
    if not importance.isfinite().all() or (importance < 0).any():
        raise NumericalError("the importance of the inputs is negative or not finite")
    mean = importance.mean()
    return importance / mean if mean > 0 else None
