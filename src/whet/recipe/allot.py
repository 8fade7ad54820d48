"""Shares of sparsity by matrix, found from the whole model before any weight is changed.

What was found is a file of the run, so that a run that goes on has the same.
Law: the size of the result is what the plan said.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from whet.formats.spec import Float, Format, Sparse
from whet.model.source import Source
from whet.passes.linear_pass import ByOutliers, LinearPass
from whet.recipe.outliers import by_outliers
from whet.recipe.plan import Placed, Plan, allocates
from whet.recipe.ranking import by_ranking
from whet.store.durable import write_json
from whet.store.json_file import read_json

SHARES = "shares.json"
WORD = (
    8  # codes that fill whole bytes: what stays grows and shrinks by so many, so sizes stay exact
)


def allotted(
    plan: Plan, source: Source, ids: Tensor, work: Path, stopped: Callable[[], bool]
) -> Plan:
    """Return a plan whose steps have the shares that the model calls for."""
    asked = [i for i, step in enumerate(plan.recipe.steps) if allocates(step)]
    if not asked:
        return plan
    path = work / SHARES
    if not path.is_file():
        found = {str(i): _stays(plan, i, source, ids, work, stopped) for i in asked}
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    kept: Mapping[str, Mapping[str, int]] = read_json(path)
    passes = dict(plan.passes)
    for index in asked:
        for placed in _of_step(plan, index):
            use, stays = plan.recipe.steps[index].use, kept[str(index)][placed.site.module]
            assert isinstance(use, LinearPass)
            passes[index, placed.site.module] = use.allotted(placed.site, stays)
    return replace(plan, passes=passes)


def _of_step(plan: Plan, index: int) -> list[Placed]:
    return [placed for placed in plan.placed if index in placed.steps]


def _stays(
    plan: Plan, index: int, source: Source, ids: Tensor, work: Path, stopped: Callable[[], bool]
) -> dict[str, int]:
    """Return how many weights stay of each matrix of a step, by module."""
    use = plan.recipe.steps[index].use
    assert isinstance(use, LinearPass)
    formats = {p.site: plan.passes[index, p.site.module].format for p in _of_step(plan, index)}
    planned = {site: _planned(format_, site.shape) for site, format_ in formats.items()}
    unit = max(_unit(format_) for format_ in formats.values())
    if isinstance(use.shares, ByOutliers):
        found = by_outliers(planned, unit, use.shares, source, ids, work, stopped)
    else:
        found = by_ranking(planned, unit, source, stopped)
    return {site.module: stays for site, stays in found.items()}


def _planned(format_: Format, shape: tuple[int, int]) -> int:
    assert isinstance(format_, Sparse)
    return format_.pattern.of_matrix(*shape)


def _unit(format_: Format) -> int:
    assert isinstance(format_, Sparse)
    return 1 if isinstance(format_.inner, Float) else WORD
