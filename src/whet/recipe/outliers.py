"""Shares by outliers: blocks that have more of them keep more.

OWL (arXiv:2310.05175, §3.2): with A = |w|·√E[x²], a block's outliers are the weights whose A is more
than M times its mean over the block. Blocks with more of them keep more: shares are moved by the
share of outliers, scaled to a spread of 2λ, about the share that was asked for. The published mean
over blocks is kept exactly here: of each kind of linear, as many weights go as the format says.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from whet.base.errors import StoppedError
from whet.calibrate.statistics import Energy
from whet.calibrate.walk import Stop, walk
from whet.model.site import Site
from whet.model.source import Source
from whet.passes.linear_pass import ByOutliers
from whet.recipe.exact import whole


def by_outliers(
    planned: Mapping[Site, int],
    unit: int,
    asked: ByOutliers,
    source: Source,
    ids: Tensor,
    work: Path,
    stopped: Callable[[], bool],
) -> dict[Site, int]:
    """Return how many weights stay of each site: as `planned`, or some inputs of every row more or less.

    Law: of each kind of linear, as many stay as planned, and of sites outside blocks.
    """
    layers = _outliers(list(planned), asked, source, ids, work, stopped)
    kinds: dict[tuple[str, tuple[int, int]], list[Site]] = defaultdict(list)
    for site in planned:
        if site.layer is not None:
            kinds[site.role, site.shape].append(site)
    found = dict(planned)
    for some in kinds.values():
        more = moved({s.layer: layers[s.layer] for s in some if s.layer is not None}, asked.spread)
        (rows, inputs), stays = some[0].shape, planned[some[0]] // some[0].shape[0]
        scaled = {layer: one * inputs / unit for layer, one in more.items()}
        bounds = -((stays - 1) // unit), (inputs - stays) // unit
        units = whole(scaled, dict.fromkeys(scaled, bounds))
        for site in some:
            assert site.layer is not None
            found[site] += rows * unit * units[site.layer]
    return found


def _outliers(
    asked_of: Sequence[Site],
    asked: ByOutliers,
    source: Source,
    ids: Tensor,
    work: Path,
    stopped: Callable[[], bool],
) -> dict[int, float]:
    """Return the share of outliers of each block, by its number."""
    folder = work / "shares"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, float] = {}
    for stop in walk(source, ids, folder):
        if stopped():
            raise StoppedError(
                f"stopped before outliers were counted in block {stop.layer + 1}",
                "Run the same command to go on.",
            )
        if sites := [site for site in asked_of if site.layer == stop.layer]:
            found[stop.layer] = outliers(list(scores(stop, sites)), asked.outlier)
    return found


def scores(stop: Stop, sites: Sequence[Site]) -> Iterator[Tensor]:
    """Yield |w|·√E[x²] of some linears of a block."""
    squares: dict[str, Tensor] = {}
    for tap in (tap for tap in stop.block.taps if any(site.tap == tap for site in sites)):
        squares[tap] = stop.look(tap, Energy)[Energy].mean_square()
    for site in sites:
        yield stop.block.linears[site.role].weight.dense().abs() * squares[site.tap].sqrt()


def outliers(found: Sequence[Tensor], times: float) -> float:
    """Return the share of numbers that are more than so many times the mean of all."""
    count = sum(one.numel() for one in found)
    mean = sum(float(one.double().sum()) for one in found) / max(count, 1)
    return sum(int((one > times * mean).sum()) for one in found) / max(count, 1)


def moved(found: Mapping[int, float], spread: float) -> dict[int, float]:
    """Return by how much the share that stays of each block is more than their mean.

    Law: they sum to zero, and lie 2·spread apart at the farthest; equal blocks are treated alike.
    """
    low, high = min(found.values()), max(found.values())
    if high == low:
        return dict.fromkeys(found, 0.0)
    scaled = {layer: 2 * spread * (one - low) / (high - low) for layer, one in found.items()}
    mean = sum(scaled.values()) / len(scaled)
    return {layer: one - mean for layer, one in scaled.items()}
