"""Shares of sparsity by layer, found on a walk over the whole model before any weight is changed.

OWL (arXiv:2310.05175, §3.2): with A = |w|·√E[x²], a block's outliers are the weights whose A is more
than M times its mean over the block. Blocks with more of them keep more: shares are moved by the
share of outliers, scaled to a spread of 2λ, about the share that was asked for. The published mean
over blocks is kept exactly here: of each kind of linear, as many weights go as the format says.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from whet.base.errors import StoppedError
from whet.calibrate.statistics import Energy
from whet.calibrate.walk import Stop, walk
from whet.formats.spec import Float, Sparse
from whet.model.site import Site
from whet.model.source import Source
from whet.passes.linear_pass import LinearPass, Shares
from whet.recipe.plan import Placed, Plan, allocates
from whet.store.durable import write_json
from whet.store.json_file import read_json

SHARES = "shares.json"
WORD = 8  # codes that fill whole bytes: rows grow and shrink by so many, so that sizes stay exact


def allotted(
    plan: Plan, source: Source, ids: Tensor, work: Path, stopped: Callable[[], bool]
) -> Plan:
    """Return a plan whose steps have the shares that the model calls for.

    What was found is kept in `work`, so that a run that goes on has the same.
    Law: the size of the result is what the plan said.
    """
    asked = [i for i, step in enumerate(plan.recipe.steps) if allocates(step)]
    if not asked:
        return plan
    path = work / SHARES
    if not path.is_file():
        found = {str(i): _outliers(plan, i, source, ids, work, stopped) for i in asked}
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    shares: Mapping[str, Mapping[str, float]] = read_json(path)
    passes = dict(plan.passes)
    for index in asked:
        passes |= _settled(plan, index, shares[str(index)])
    return replace(plan, passes=passes)


def _outliers(
    plan: Plan,
    index: int,
    source: Source,
    ids: Tensor,
    work: Path,
    stopped: Callable[[], bool],
) -> dict[str, float]:
    """Return the share of outliers of each block, by its number."""
    asked = _use(plan, index)[1]
    folder = work / "shares"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    for stop in walk(source, ids, folder):
        if stopped():
            raise StoppedError(
                f"stopped before outliers were counted in block {stop.layer + 1}",
                "Run the same command to go on.",
            )
        sites = [p.site for p in plan.of_layer(stop.layer) if index in p.steps]
        if sites:
            found[str(stop.layer)] = outliers(list(scores(stop, sites)), asked.outlier)
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


def whole(wanted: Mapping[int, float], low: int, high: int) -> dict[int, int]:
    """Return whole numbers nearest to those wanted, within bounds, that sum to zero.

    What is left after rounding goes where rounding has taken most away.
    """
    found = {key: min(high, max(low, round(value))) for key, value in wanted.items()}
    while rest := sum(found.values()):
        step = -1 if rest > 0 else 1
        free = [key for key, value in found.items() if low <= value + step <= high]
        best = max(free, key=lambda key: (step * (wanted[key] - found[key]), -key))
        found[best] += step
    return found


def _use(plan: Plan, index: int) -> tuple[LinearPass, Shares]:
    use = plan.recipe.steps[index].use
    assert isinstance(use, LinearPass)
    assert use.shares is not None
    return use, use.shares


def _settled(
    plan: Plan, index: int, shares: Mapping[str, float]
) -> dict[tuple[int, str], LinearPass]:
    """Return the passes of a step, of which each kind of linear keeps as many weights as planned."""
    use, asked = _use(plan, index)
    found = {int(layer): one for layer, one in shares.items()}
    kinds: dict[tuple[str, tuple[int, int]], list[Placed]] = defaultdict(list)
    for placed in plan.placed:
        if index in placed.steps and placed.site.layer is not None:
            kinds[placed.site.role, placed.site.shape].append(placed)
    passes: dict[tuple[int, str], LinearPass] = {}
    for some in kinds.values():
        layers = {p.site.layer: found[p.site.layer] for p in some if p.site.layer is not None}
        more = _more(plan, index, some[0].site, moved(layers, asked.spread))
        for placed in some:
            assert placed.site.layer is not None
            passes[index, placed.site.module] = use.allotted(placed.site, more[placed.site.layer])
    return passes


def _more(plan: Plan, index: int, site: Site, wanted: Mapping[int, float]) -> dict[int, int]:
    """Return how many more inputs of each row stay in each layer."""
    format_ = plan.passes[index, site.module].format
    assert isinstance(format_, Sparse)
    rows, inputs = site.shape
    unit = 1 if isinstance(format_.inner, Float) else WORD
    stays = format_.pattern.of_matrix(rows, inputs) // rows
    low, high = -((stays - 1) // unit), (inputs - stays) // unit
    scaled = {layer: one * inputs / unit for layer, one in wanted.items()}
    return {layer: one * unit for layer, one in whole(scaled, low, high).items()}
