"""The exact choice of a level for every unit: a multiple-choice knapsack with any number of limits.

    min Σ goal(u, l) x(u, l)   over x in {0, 1}, one l for each u, Σ cost(u, l) x(u, l) ≤ limit

An integer program for HiGHS (Huangfu, Hall, doi:10.1007/s12532-017-0130-5), which returns with the
solution a bound below which no choice can be.
"""

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import NumericalError
from whet.search.option import Choice, Menus, total

SECONDS = 20.0  # after which the best that was found is taken, with its bound
TIE = 1e-7  # share of a goal that the other costs may decide
Costs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit on a sum over the units: of `nbytes`, `decode`, `prefill`, `kl` or `bits`."""

    name: str
    limit: float
    scope: str = "all"  # or "blocks": what lies outside them does not count


@dataclass(frozen=True, slots=True)
class Allocation:
    """A choice, its value, and the value below which no choice within the caps can be."""

    choice: Choice
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """How far the value may be from the best, as a share of it [1]; 0 is proven best."""
        return max(0.0, self.value - self.bound) / self.value if self.value > 0 else 0.0


def allocate(menus: Menus, goal: str, caps: Sequence[Cap], gap: float = 0.0) -> Allocation | None:
    """Return the choice of least `goal` within the caps, or None if there is none.

    `gap`: how far from the best it may be, as a share of it, where that is found much sooner.
    Law: equal to the best of all choices where these can be counted. Law: a wider cap is never worse.
    """
    values, ties = costs_of(menus, goal), _ties(menus, goal)
    scale = float(values.max()) or 1.0
    found = _solved(menus, values / scale + TIE * ties, caps, gap)
    if found is None:
        return None
    choice, bound = found
    value = total(menus, choice, goal)
    slack = TIE * float(ties.sum()) * scale  # the ties' part of the bound
    return Allocation(choice, value, min(value, max(0.0, bound * scale - slack)))


def costs_of(menus: Menus, name: str) -> Costs:
    """Return an attribute of every option of every unit, one after the other."""
    return np.array(
        [float(getattr(option, name) or 0.0) for menu in menus for option in menu], np.float64
    )


def _ties(menus: Menus, goal: str) -> Costs:
    """Return what decides between equal choices: the smaller one, and the better one."""
    found = np.zeros(sum(len(menu.options) for menu in menus))
    for name in {"nbytes", "kl"} - {goal}:
        costs = costs_of(menus, name)
        found += costs / (costs.max() or 1.0)
    return found / max(len(found), 1)


def _solved(
    menus: Menus, goal: Costs, caps: Sequence[Cap], gap: float
) -> tuple[Choice, float] | None:
    """Return the choice of least goal, and the bound."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    one = _one_each(menus)
    constraints: list[Any] = [LinearConstraint(one, 1, 1)]
    for cap in caps:
        row = costs_of(menus, cap.name) * _counted(menus, cap)
        scale = float(row.max()) or 1.0
        constraints.append(LinearConstraint(row[None] / scale, -np.inf, cap.limit / scale))
    with _silenced():
        found: Any = milp(
            goal,
            integrality=np.ones(len(goal)),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": SECONDS, "mip_rel_gap": gap},
        )
    if found.x is None:
        return None
    return _read(menus, found.x), float(found.mip_dual_bound)


@contextmanager
def _silenced() -> Generator[None]:
    """Keep what HiGHS prints from its depths, past all options, out of our results."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _one_each(menus: Menus) -> Any:  # noqa: ANN401 (a sparse matrix of scipy)
    """Return the rows that say: one option for each unit."""
    from scipy.sparse import csr_array

    unit = np.repeat(np.arange(len(menus)), [len(menu.options) for menu in menus])
    return csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))))


def _counted(menus: Menus, cap: Cap) -> Costs:
    """Return 1 for the options that a cap counts, 0 for the others."""
    inside = [cap.scope == "all" or menu.unit.layer is not None for menu in menus for _ in menu]
    return np.array(inside, np.float64)


def _read(menus: Menus, x: Costs) -> Choice:
    choice: dict[str, int] = {}
    start = 0
    for menu in menus:
        stop = start + len(menu.options)
        choice[menu.unit.name] = int(np.argmax(x[start:stop]))
        start = stop
    if not np.isclose(x.max(), 1.0, atol=1e-4):
        raise NumericalError("the solver has returned no choice", "this is a fault in whet")
    return choice


def spent(menus: Menus, choice: Choice, cap: Cap) -> float:
    """Return what a choice takes of a cap."""
    inside = [menu for menu in menus if cap.scope == "all" or menu.unit.layer is not None]
    return total(inside, choice, cap.name)


def within(menus: Menus, choice: Choice, caps: Sequence[Cap]) -> bool:
    """Return whether a choice keeps every cap."""
    return all(spent(menus, choice, cap) <= cap.limit * (1 + 1e-12) for cap in caps)
