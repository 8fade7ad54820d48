"""Shares by one ranking: of all matrices together, the weights of greatest magnitude stay.

Han, Pool, Tran, Dally, "Learning both Weights and Connections" (arXiv:1506.02626), with one threshold
for the whole model. Magnitudes are counted by the upper half of their float32, which is exact for
bfloat16 and within 0.4 % for others; of weights at the threshold each matrix keeps the same share.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.base.errors import StoppedError
from whet.model.site import Site
from whet.model.source import Source
from whet.recipe.exact import whole

BINS = 1 << 15  # a float32 without its sign and the lower half


def by_ranking(
    planned: Mapping[Site, int], unit: int, source: Source, stopped: Callable[[], bool]
) -> dict[Site, int]:
    """Return how many weights stay of each site; `planned` or a multiple of `unit` more or less.

    Law: in all, as many stay as planned; each matrix keeps at least one unit or what was planned.
    """
    counts: dict[Site, Int64[Tensor, "bins"]] = {}
    for site in planned:
        if stopped():
            raise StoppedError(
                f"stopped before the weights of {site.module} were ranked",
                "Run the same command to go on.",
            )
        counts[site] = counted(source.weight(site).dense())
    above, share = _threshold(torch.stack(list(counts.values())).sum(0), sum(planned.values()))
    wanted: dict[int, float] = {}
    bounds: dict[int, tuple[int, int]] = {}
    for i, (site, found) in enumerate(counts.items()):
        stays = float(found[above + 1 :].sum()) + share * float(found[above])
        rows, inputs = site.shape
        wanted[i] = (stays - planned[site]) / unit
        bounds[i] = -((planned[site] - 1) // unit), (rows * inputs - planned[site]) // unit
    units = whole(wanted, bounds)
    return {site: planned[site] + unit * units[i] for i, site in enumerate(counts)}


def counted(weight: Float[Tensor, "out in"]) -> Int64[Tensor, "bins"]:
    """Return how many weights there are of each magnitude, ascending."""
    bits = weight.float().abs().contiguous().view(torch.int32)
    return torch.bincount((bits >> 16).flatten(), minlength=BINS)


def _threshold(counts: Int64[Tensor, "bins"], stays: int) -> tuple[int, float]:
    """Return the magnitude above which all stay, and the share that stays of those at it."""
    at_least = counts.flip(0).cumsum(0).flip(0)
    level = int((at_least >= stays).nonzero().max())
    short = stays - (int(at_least[level]) - int(counts[level]))
    return level, short / int(counts[level])
