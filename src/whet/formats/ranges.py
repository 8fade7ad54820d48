"""Choosing scales and zero points: extremes, quantiles, or the least error over many shrinkages.

Every candidate is rounded to its stored type before it is judged. A candidate is allowed only where
a weight of the group reaches one of the outermost levels: then the rounded group has extremes from
which the same parameters are found again, which makes writing a projection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from whet.formats.codec import Search
from whet.formats.divergence import divergence
from whet.formats.groups import Contest, Groups, Near, Sums

Store = Callable[[Tensor], Tensor]

POLISHES = 2  # least-squares steps after the search


@dataclass(frozen=True, slots=True, eq=False)
class Ruler:
    """What the search needs to know of a set of levels.

    `tops`: the largest magnitudes, falling; a short list. `short`: the nearer end's magnitude.
    `sides`: 1 where levels are symmetric or the scale has no sign; else 2, and a longer end is
    the negative one. `thorough`: try both signs with every shrinkage. `power`: scales are powers
    of two. `stretch`: how much wider than the extremes a range may be, such that these are still
    rounded to the outermost level. `oriented`: the sign of a scale puts the widest weight on the
    positive side, and a range is allowed only where that weight is rounded to the level at 1.
    """

    near: Near
    tops: tuple[float, ...]
    short: float
    sides: int
    codes: int
    thorough: bool = False
    power: bool = False
    stretch: float = 1.0
    oriented: bool = False

    @property
    def lopsided(self) -> bool:
        """Whether the sign of a scale decides which side reaches further."""
        return self.sides == 2 and self.tops[0] > self.short


def fitted_scale(groups: Groups, ruler: Ruler, search: Search, store: Store) -> Sums:
    """Return scales of a format without zero points."""
    low, high = groups.extremes(search.percentile if search.rule == "percentile" else 1.0)
    widest = torch.maximum(-low, high)
    toward = _toward(low, high, ruler)
    first = store(_first(widest, toward, ruler))
    if search.rule in ("minmax", "percentile"):
        return first
    contest = Contest(groups, ruler.near, _criterion(groups, ruler, search))
    contest.offer(first)
    signs = (toward, -toward)[: ruler.sides]
    for top in ruler.tops:
        for sign in signs:
            contest.offer(store(sign * widest / top))
    for shrink in _shrinkages(search, ruler):
        for sign in signs if ruler.thorough else signs[:1]:
            scale = store(sign * (widest / ruler.short) * shrink)
            contest.offer(scale, None, _reached(scale, widest, ruler))
    if ruler.sides == 2:
        contest.offer(-contest.scale)
    for _ in range(0 if search.rule == "kl" else POLISHES):
        _, _, uu, _, uw = groups.moments(ruler.near, contest.scale, None)
        scale = store((uw / uu.clamp(min=torch.finfo(uu.dtype).tiny)).float())
        contest.offer(scale, None, (uu > 0) & _reached(scale, widest, ruler))
    return contest.scale


def _reached(scale: Sums, widest: Sums, ruler: Ruler) -> Bool[Tensor, "#rows #groups"]:
    """Return where the widest weight is rounded to the outermost level."""
    if ruler.oriented:
        return ruler.near(widest / scale.abs(), None) == 1
    limit = widest / ruler.short * max(1 + 2.0**-9, ruler.stretch * (1 + 2.0**-9))
    return scale.abs() <= limit


def fitted_zero(
    groups: Groups, near: Near, top: int, search: Search, store: Store
) -> tuple[Sums, Sums]:
    """Return scales and zero points of unsigned codes 0 to `top`."""
    low, high = groups.extremes(search.percentile if search.rule == "percentile" else 1.0)

    def at(shrink: float, shift: int = 0) -> tuple[Sums, Sums]:
        scale = store((high - low) * (shrink / top))
        return scale, ((-low * shrink / scale).round() + shift).clamp(0, top)

    if search.rule in ("minmax", "percentile"):
        return at(1.0)
    ruler = Ruler(near, (), 1.0, 1, top + 1)
    contest = Contest(groups, near, _criterion(groups, ruler, search))

    def offer(scale: Sums, zero: Sums) -> None:
        reach = torch.minimum((high / scale).round(), top - zero)
        reach = reach + torch.minimum((-low / scale).round(), zero)
        contest.offer(scale, zero, reach >= max(top - 2, 1))

    contest.offer(*at(1.0))
    for span in (top - 1, top - 2):
        scale = store((high - low) / span)
        contest.offer(scale, (-low / scale).round().clamp(0, top))
    shrinkages = _shrinkages(search, ruler)
    for shrink in shrinkages:
        offer(*at(shrink))
    for shift in (-1, 1) if top < 16 else ():
        for shrink in (1.0, *shrinkages[1::2]):
            offer(*at(shrink, shift))
    for _ in range(0 if search.rule == "kl" else POLISHES):
        for scale, zero in _regressed(groups, near, top, *contest.pair()):
            offer(store(scale), zero)
    return contest.pair()


def _regressed(
    groups: Groups, near: Near, top: int, scale: Sums, zero: Sums
) -> list[tuple[Sums, Sums]]:
    """Return the least-squares scale for these codes, and scale and zero point for them."""
    one, u, uu, w, uw = groups.moments(near, scale, zero).double()
    slope = uw / uu.clamp(min=torch.finfo(uu.dtype).tiny)
    spread = one * uu - u * u
    steep = (one * uw - u * w) / spread.clamp(min=torch.finfo(uu.dtype).tiny)
    offset = (w - steep * u) / one.clamp(min=torch.finfo(uu.dtype).tiny)
    usable = (spread > 0) & (steep > 0)
    moved = (zero - torch.where(usable, offset / steep, 0.0)).round().clamp(0, top).float()
    shift = zero - moved  # the same codes, read with the moved zero point
    shifted = (uw + shift * w) / (uu + 2 * shift * u + shift * shift * one).clamp(min=1e-300)
    safe = [s.abs().clamp(max=torch.finfo(torch.float32).max).float() for s in (slope, shifted)]
    return [(safe[0], zero), (safe[1], moved)]


def _toward(low: Sums, high: Sums, ruler: Ruler) -> Sums:
    """Return the sign of a scale that puts the widest weight on the longer side of the levels."""
    if not (ruler.lopsided or ruler.oriented):
        return torch.ones_like(low)
    return torch.where(-low >= high, 1.0, -1.0) * (-1 if ruler.oriented else 1)


def _first(widest: Sums, toward: Sums, ruler: Ruler) -> Sums:
    """Return the scale that just covers the extremes; OCP's rule for powers of two."""
    if ruler.power:
        tops = torch.tensor(ruler.short).log2().floor()
        return torch.exp2(torch.frexp(widest).exponent - 1 - tops)
    return toward * widest / (ruler.tops[0] if ruler.lopsided else ruler.short)


def _shrinkages(search: Search, ruler: Ruler) -> list[float]:
    if ruler.power:
        return [4.0, 2.0, 1.0, 0.5]
    deepest = search.floor * (ruler.short / ruler.tops[0] if ruler.tops else 1)
    return torch.linspace(ruler.stretch, deepest, max(search.steps, 2)).tolist()


def _criterion(groups: Groups, ruler: Ruler, search: Search) -> Callable[[Sums, Sums | None], Sums]:
    """Return what the search minimises, as a function of scales and zero points."""
    if search.rule == "kl":
        return divergence(groups, ruler.near, ruler.codes)
    return partial(groups.loss, ruler.near)
