"""Formats made of formats: the sum of several scalar formats, read as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.formats import spec
from whet.formats.codec import Params, Planes, Scalar, Search, require_finite
from whet.formats.scaled import PART, Scaled, part
from whet.formats.spec import Shape

ROUNDS = 2  # of fitting each term anew to what the others leave
STRETCHES = (1.0, 1.25, 1.5)  # of the first term: a wider, coarser one leaves less beyond its ends

Parts = tuple[Float[Tensor, "out cols"], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Terms(Params):
    """Parameters of every term; `scale` is that of the first, and moves all of them."""

    terms: tuple[Params, ...] = ()


class Sum(Scalar):
    """A sum of codes, each with scales of its own: a two-level code when there are two.

    `snap` looks at every combination, so nothing representable is nearer. The unit is relative to
    the first term's scale; `rescaled` moves the scales of all terms in proportion.
    There is no canonical way to write a sum: writing what was read gives nearby values, not always
    the same ones, unless its parameters are kept.
    """

    def __init__(self, format_: spec.Sum, codecs: Sequence[Scaled]) -> None:
        self.format = format_
        self.codecs = tuple(codecs)
        self.rowwise = all(codec.rowwise for codec in codecs)
        self.order = sorted(range(len(codecs)), key=lambda i: codecs[i].bits)  # narrowest first

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write a near member with the parameters of least squared error that were found."""
        params = self.fit(weight)
        return self.write(self.snap(weight, params, torch.arange(weight.shape[1])), params)

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Add the terms."""
        mine = [codec.decode(of(i, planes), shape) for i, codec in enumerate(self.codecs)]
        return _added(tuple(mine))

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows."""
        return joined(
            [codec.rows(of(i, planes), shape, start, stop) for i, codec in enumerate(self.codecs)]
        )

    def fit(
        self,
        weight: Float[Tensor, "out in"],
        search: Search = Search(),
        importance: Float[Tensor, "in"] | None = None,
    ) -> Params:
        """Fit each term to what the others leave, in turn, as long as the error falls."""
        require_finite(weight)
        first = self.codecs[0].fit(weight, search, importance)
        starts = [self._start(weight, first, by, search, importance) for by in STRETCHES]
        best, parts, loss = min(
            (self._judged(weight, start, importance) for start in starts),
            key=lambda found: found[2],
        )
        for i, codec in list(enumerate(self.codecs)) * ROUNDS:
            others = _added(tuple(p for j, p in enumerate(parts) if j != i))
            anew = codec.fit(weight.float() - others, search, importance)
            terms = [anew if j == i else p for j, p in enumerate(best.terms)]
            tried = self._judged(weight, terms, importance)
            if tried[2] < loss:
                best, parts, loss = tried
        return best

    def _start(
        self,
        weight: Float[Tensor, "out in"],
        first: Params,
        stretch: float,
        search: Search,
        importance: Float[Tensor, "in"] | None,
    ) -> list[Params]:
        """Return a first term with stretched scales, and each next one fitted to what is left."""
        columns = torch.arange(weight.shape[1])
        fitted = [replace(first, scale=self.codecs[0].stored(first.scale * stretch, first))]
        left = weight.float()
        for codec, after in pairwise(self.codecs):
            left = left - codec.snap(left, fitted[-1], columns)
            fitted.append(after.fit(left, search, importance))
        return fitted

    def snap(
        self, weight: Float[Tensor, "out cols"], params: Params, columns: Int64[Tensor, "cols"]
    ) -> Float[Tensor, "out cols"]:
        """Return the nearest sums."""
        return _added(self._parts(weight.float(), self._terms(params), columns))

    def unit(self, values: Float[Tensor, "out in"], params: Params) -> Float[Tensor, "out in"]:
        """Return representable values relative to the scale of the first term."""
        columns = torch.arange(values.shape[1])
        return values / self.codecs[0].spread(params.scale, columns)

    def stored(
        self, scale: Float[Tensor, "#rows #groups"], params: Params
    ) -> Float[Tensor, "#rows #groups"]:
        """Round scales of the first term to the type they are stored in."""
        return self.codecs[0].stored(scale, self._terms(params)[0])

    def rescaled(
        self,
        values: Float[Tensor, "out in"],
        params: Params,
        scale: Float[Tensor, "#rows #groups"],
    ) -> tuple[Float[Tensor, "out in"], Params]:
        """Return the same codes under other scales, those of later terms moved in proportion."""
        terms = self._terms(params)
        parts = self._parts(values, terms, torch.arange(values.shape[1]))
        moved = self._moved(terms, scale)
        new = [
            codec.rescaled(values_, old, now)
            for codec, values_, old, now in zip(self.codecs, parts, terms, moved, strict=True)
        ]
        return _added(tuple(value for value, _ in new)), _terms_of([p for _, p in new])

    def write(self, values: Float[Tensor, "out in"], params: Params) -> dict[str, Tensor]:
        """Assemble the planes of representable values."""
        terms = self._terms(params)
        parts = self._parts(values, terms, torch.arange(values.shape[1]))
        return joined([c.write(v, p) for c, v, p in zip(self.codecs, parts, terms, strict=True)])

    def read(self, planes: Planes, shape: Shape) -> tuple[Float[Tensor, "out in"], Params]:
        """Undo `write`."""
        found = [codec.read(of(i, planes), shape) for i, codec in enumerate(self.codecs)]
        return _added(tuple(value for value, _ in found)), _terms_of([p for _, p in found])

    def parts(
        self, weight: Float[Tensor, "out cols"], params: Params, columns: Int64[Tensor, "cols"]
    ) -> Parts:
        """Return the terms of the nearest sums. Law: they add up to `snap`."""
        return self._parts(weight.float(), self._terms(params), columns)

    def _judged(
        self,
        weight: Float[Tensor, "out in"],
        fitted: Sequence[Params],
        importance: Float[Tensor, "in"] | None,
    ) -> tuple[Terms, Parts, float]:
        """Return parameters, the parts of the nearest sums, and their (weighted) squared error."""
        parts = self._parts(weight.float(), fitted, torch.arange(weight.shape[1]))
        error = (_added(parts) - weight).square_()
        loss = float((error if importance is None else error.mul_(importance)).sum())
        return _terms_of(fitted), parts, loss

    def _parts(
        self,
        weight: Float[Tensor, "out cols"],
        terms: Sequence[Params],
        columns: Int64[Tensor, "cols"],
    ) -> Parts:
        """Return the terms of the nearest sum, trying every code of all terms but the widest."""
        step = max(1, PART // max(len(columns), 1))
        if len(weight) > step:
            cuts = [slice(a, a + step) for a in range(0, len(weight), step)]
            rows = [self._parts(weight[r], [part(t, r) for t in terms], columns) for r in cuts]
            return tuple(torch.cat(pieces) for pieces in zip(*rows, strict=True))
        return self._nearest(weight, terms, columns, self.order)

    def _nearest(
        self,
        weight: Float[Tensor, "out cols"],
        terms: Sequence[Params],
        columns: Int64[Tensor, "cols"],
        order: Sequence[int],
    ) -> Parts:
        """Return the parts of the nearest sum of the terms in `order`; zeros for the others."""
        first, codec = terms[order[0]], self.codecs[order[0]]
        parts = [torch.zeros_like(weight) for _ in terms]
        if len(order) == 1:
            parts[order[0]] = codec.snap(weight, first, columns)
            return tuple(parts)
        best, least = tuple(parts), torch.full_like(weight, torch.inf)
        for value in codec.choices(first, columns):
            tried = list(self._nearest(weight - value, terms, columns, order[1:]))
            tried[order[0]] = value.expand_as(weight)
            error = (_added(tuple(tried)) - weight).abs_()
            nearer = error < least
            least = torch.minimum(error, least)
            best = tuple(torch.where(nearer, t, b) for t, b in zip(tried, best, strict=True))
        return best

    def _terms(self, params: Params) -> tuple[Params, ...]:
        """Return each term's parameters; all scales follow a first one that was replaced."""
        assert isinstance(params, Terms)
        if torch.equal(params.scale, params.terms[0].scale):
            return params.terms
        moved = self._moved(params.terms, params.scale)
        new = [
            replace(term, scale=codec.stored(scale, term))
            for codec, term, scale in zip(self.codecs, params.terms, moved, strict=True)
        ]
        return tuple(new)

    def _moved(
        self, terms: Sequence[Params], scale: Float[Tensor, "#rows #groups"]
    ) -> list[Tensor]:
        """Return every term's scales, multiplied by what the first one's were."""
        ratio = scale / terms[0].scale
        return [term.scale * self._ratio(ratio, i, term) for i, term in enumerate(terms)]

    def _ratio(
        self, ratio: Float[Tensor, "#rows #groups"], i: int, term: Params
    ) -> Float[Tensor, "#rows #mine"]:
        """Return the first term's ratios at the first input of each group of term `i`."""
        if term.scale.shape == ratio.shape or ratio.shape[1] == 1:
            return ratio.mean(0, keepdim=True) if len(term.scale) < len(ratio) else ratio
        size = self.codecs[i].coded.grouping
        starts = torch.arange(term.scale.shape[1]) * (size if isinstance(size, int) else 0)
        found = self.codecs[0].spread(ratio, starts)
        return found.mean(0, keepdim=True) if len(term.scale) < len(found) else found


def of(i: int, planes: Planes) -> dict[str, Tensor]:
    """Return the planes of term `i` under their own names."""
    head = f"{i}."
    return {n.removeprefix(head): plane for n, plane in planes.items() if n.startswith(head)}


def joined(planes: Sequence[Planes]) -> dict[str, Tensor]:
    """Return the planes of all terms, named `i.<plane>`."""
    return {f"{i}.{name}": plane for i, mine in enumerate(planes) for name, plane in mine.items()}


def _terms_of(terms: Sequence[Params]) -> Terms:
    first = terms[0]
    return Terms(first.scale, first.zero, first.levels, first.extra, tuple(terms))


def _added(parts: Parts) -> Float[Tensor, "out cols"]:
    """Return the sum, always taken in the order of the terms."""
    return sum(parts[1:], start=parts[0])
