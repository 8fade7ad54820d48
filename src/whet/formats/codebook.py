"""Levels learned from the matrix and stored as f16: for each row, or one table for all.

Where a table and a scale belong to the same weights, the levels are free. Where one table serves
several scales, scales and levels are fitted in turn, the highest level stays at 1, and the sign of a
scale turns its group so that the widest weight lies there: turned groups are lopsided alike, and the
table follows. Zero is a level only where the weights made it one.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats import element
from whet.formats.codec import Params, Planes, Search
from whet.formats.kmeans import learned, line
from whet.formats.lookup import Lookup
from whet.formats.quantile import quantile_levels
from whet.formats.ranges import Ruler, fitted_scale
from whet.formats.scaled import part
from whet.formats.spec import Coded, Shape
from whet.formats.table import Table

BINS = 1 << 13  # of the histogram from which one table for all is learned
ROUNDS = 4  # of levels for the scales, and scales for the levels
INNER = 12  # shrinkages that are tried on the way
LOWEST = -1 + 2.0**-11  # of a turned table: the widest weight alone is as far as 1
PART = 1 << 20  # weights sorted together [weight]


class Codebook(Table):
    """A learned table."""

    def __init__(self, format_: Coded, kind: element.Learned) -> None:
        super().__init__(format_, tuple(quantile_levels(kind.bits).tolist()))
        self.shared = kind.shared
        self.free = format_.grouping == ("tensor" if kind.shared else "channel")  # of other scales
        self.rowwise = self.rowwise and not kind.shared

    def _fit(
        self, weight: Float[Tensor, "out in"], search: Search, importance: Tensor | None
    ) -> Params:
        extra = self._extra(weight)
        step = len(weight) if self.shared else max(1, PART // weight.shape[1])
        pieces = [
            self._fit_table(weight[start : start + step].float(), search, importance, extra)
            for start in range(0, len(weight), step)
        ]
        scale = torch.cat([piece.scale for piece in pieces])
        levels = torch.cat([piece.levels for piece in pieces if piece.levels is not None])
        return Params(scale, None, levels, extra)

    def _fit_table(
        self,
        weight: Float[Tensor, "out in"],
        search: Search,
        importance: Tensor | None,
        extra: dict[str, Tensor],
    ) -> Params:
        """Fit rows with tables of their own, or all rows and their one table."""
        scale = self._scales(weight, self.fixed.levels[None], Search("minmax"), None, extra)
        params = Params(scale, None, None, extra)
        levels = self._learn(weight, params, importance)
        if self.free:
            return self._normal(params, levels)
        rounds = ROUNDS if self.bits > 2 else 3 * ROUNDS  # few levels move far
        for turn in range(rounds):
            last = turn == rounds - 1
            rule = search if last else replace(search, steps=min(search.steps, INNER))
            levels = self._learn(weight, params, importance, levels) if turn else levels
            scale = self._scales(weight, levels, rule, importance, extra)
            params = Params(scale, None, levels, extra)
        return params

    def _learn(
        self,
        weight: Float[Tensor, "out in"],
        params: Params,
        importance: Tensor | None,
        start: Float[Tensor, "#out codes"] | None = None,
    ) -> Float[Tensor, "#out codes"]:
        """Return the levels of least error under these scales."""
        pieces = self._ratios(weight, params, importance)
        x, weights = _histogram(pieces, 2**self.bits) if self.shared else next(pieces)
        if self.free:
            return learned(line(x, weights), 2**self.bits, (None, None))
        levels = learned(line(x, weights), 2**self.bits, (None, 1.0), start)
        return levels.half().float().clamp(min=LOWEST)

    def _ratios(
        self, weight: Float[Tensor, "out in"], params: Params, importance: Tensor | None
    ) -> Iterator[tuple[Float[Tensor, "rows in"], Float[Tensor, "rows in"]]]:
        """Yield w / scale and what its error weighs, some rows at a time."""
        columns, step = torch.arange(weight.shape[1]), max(1, PART // weight.shape[1])
        h = torch.ones(weight.shape[1]) if importance is None else importance
        size = params.scale.abs()
        peak = size.amax() if self.shared else size.amax(1, keepdim=True)
        whole = torch.ldexp(torch.ones_like(peak), -torch.frexp(peak).exponent)
        for start in range(0, len(weight), step):
            rows = slice(start, start + step)
            scale = self.spread(part(params, rows).scale, columns)
            x = weight[rows].float() / scale
            relative = scale * (whole if whole.numel() == 1 else whole[rows])
            yield x, (relative.square() * h).expand_as(x)

    def _normal(self, params: Params, levels: Float[Tensor, "#out codes"]) -> Params:
        """Return levels whose largest magnitude is about 1, such that it gives its own scale."""
        real = levels * params.scale
        widest = real.abs().amax(1, keepdim=True)
        scale = self.stored(widest, params)
        rounded = (real / scale).half().float()
        top = widest.div(scale).half().float()
        kept = self.stored(top * scale, params) == scale
        outer = rounded.abs() >= top
        pinned = torch.where(kept | ~outer, rounded, rounded.sign())
        return Params(scale, None, pinned.sort(1).values, params.extra)

    def _scales(
        self,
        weight: Float[Tensor, "out in"],
        levels: Float[Tensor, "#out codes"],
        search: Search,
        importance: Tensor | None,
        extra: dict[str, Tensor],
    ) -> Float[Tensor, "#out #groups"]:
        """Return the scales of least error under these levels."""
        store, rows, scale = self._store(extra), 0, list[Tensor]()
        for piece in self._groups(weight, importance):
            count = piece.parts[0].shape[0]
            mine = levels if len(levels) == 1 else levels[rows : rows + count]
            scale.append(fitted_scale(piece, self._learned_ruler(mine), search, store))
            rows += count
        return torch.cat(scale)

    def _learned_ruler(self, levels: Float[Tensor, "#rows codes"]) -> Ruler:
        table = Lookup(levels[0]) if len(levels) == 1 else None

        def near(ratio: Tensor, _: Tensor | None) -> Tensor:
            return table.nearest(ratio) if table else self.near(ratio, None, levels)

        return Ruler(
            near,
            tops=(1.0,),
            short=1.0,
            sides=1,
            codes=2**self.bits,
            power=self.coded.scale == "e8m0",
            stretch=1.25 if not self.free else 1.0,
            oriented=not self.free,
        )

    def _by_row(self) -> tuple[str, ...]:
        return (*super()._by_row(), *(() if self.shared else ("levels",)))

    def _write_extra(self, params: Params) -> dict[str, Tensor]:
        assert params.levels is not None
        return {**super()._write_extra(params), "levels": params.levels.half()}

    def _read_params(self, planes: Planes, shape: Shape) -> Params:
        params = super()._read_params(planes, shape)
        return Params(params.scale, None, planes["levels"].float(), params.extra)


def _histogram(
    pieces: Iterator[tuple[Tensor, Tensor]], codes: int
) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "1 n"]]:
    """Return the means and weights of the filled bins, or all numbers where they are few."""
    mass, first = torch.zeros(BINS).double(), torch.zeros(BINS).double()
    few: Tensor | None = torch.empty(0)
    for x, weights in pieces:
        place = ((x + 1) * (BINS / 2)).long().clamp_(0, BINS - 1).reshape(-1)
        mass += torch.bincount(place, weights.reshape(-1), BINS)
        first += torch.bincount(place, (weights * x).reshape(-1), BINS)
        few = None if few is None else torch.cat([few, x.reshape(-1)]).unique()
        few = None if few is None or len(few) > codes else few
    if few is not None:
        return few[None], torch.ones(1, len(few))
    filled = mass > 0
    return (first / mass)[filled].float()[None], mass[filled].float()[None]
