"""GPTQ: round one input at a time, and let those not yet rounded make good what was lost.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ" (arXiv:2210.17323), in the form of Chee, Cai, Kuleshov,
De Sa, "QuIP" (arXiv:2307.13304, §3: LDLQ, shown there to be the same): with H = L Lᵀ and the last
input first, input j is rounded to the nearest of

    t_j = T_j - (Σ_{i>j} L_ij (Q_i - T_i)) / L_jj,       and the loss is Σ_j L_jj² (Q_j - t_j)².

No inverse of H is formed. The sum is kept up to date by halves, so that nearly all work is in
products of large matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.methods.solve.factor import Factor
from whet.methods.solve.lattice import Members
from whet.methods.solve.native import native_columns

LEAF = 16  # inputs whose sums are updated one by one

Choose = Callable[
    [Int64[Tensor, "block"], Float[Tensor, "block out"], Float[Tensor, "block"]], None
]


def rounded(
    target: Float[Tensor, "in out"],
    factor: Factor,
    lattice: Members,
    leaf: int = LEAF,
    choose: Choose | None = None,
) -> tuple[Float[Tensor, "in out"], Float[Tensor, "out"]]:
    """Return Q, and the loss of each of its columns with the damping of `factor`.

    `choose` is told of each `leaf` of inputs before they are rounded: which they are, what would be
    best for them now, were they and those after them free, and the L_jj. It may change `lattice`.

    Law: the loss is the diagonal of (Q-T)ᵀ (H + ridge·I) (Q-T).
    Law: `leaf` changes nothing but rounding errors.
    Law: for diagonal H this is rounding to nearest; a target on the grid is returned as it is.
    """
    if choose is None and (found := native_columns(target, factor, lattice)) is not None:
        return found
    walk = _Walk(target, factor, lattice, torch.empty_like(target), leaf, choose)
    walk.down(0, len(target))
    return walk.result, walk.loss


@dataclass(eq=False)
class _Walk:
    target: Tensor
    factor: Factor
    lattice: Members
    result: Tensor
    leaf: int
    choose: Choose | None = None

    def __post_init__(self) -> None:
        self.order = self.factor.order.tolist()
        self.pivot = self.factor.lower.diagonal().tolist()
        self.delta = torch.empty_like(self.target)  # Q - T, in the factor's order
        self.owed = torch.zeros_like(self.target)  # Σ_{i>j} L_ij (Q_i - T_i), likewise
        self.loss = self.target.new_zeros(self.target.shape[1])

    def down(self, low: int, high: int) -> None:
        """Round inputs `low` to `high` of the order, the last first."""
        if high - low <= self.leaf:
            self._leaf(low, high)
            return
        middle = low + _half(high - low, self.leaf)
        self.down(middle, high)
        coupling = self.factor.lower[middle:high, low:middle]
        self.owed[low:middle].addmm_(coupling.T, self.delta[middle:high])
        self.down(low, middle)

    def _leaf(self, low: int, high: int) -> None:
        lower = self.factor.lower
        if self.choose is not None:
            self._ask(self.choose, low, high)
        for j in reversed(range(low, high)):
            place, pivot = self.order[j], self.pivot[j]
            wanted = torch.add(self.target[place], self.owed[j], alpha=-1 / pivot)
            found = self.lattice.nearest(wanted, place)
            self.result[place] = found
            torch.sub(found, self.target[place], out=self.delta[j])
            self.loss.addcmul_(wanted.sub_(found), wanted, value=pivot * pivot)
            if j > low:
                self.owed[low:j].addr_(lower[j, low:j], self.delta[j])

    def _ask(self, choose: Choose, low: int, high: int) -> None:
        """Tell `choose` of some inputs: (Lᵀ δ)_j = -owed_j for what is best of them."""
        lower, places = self.factor.lower[low:high, low:high], self.factor.order[low:high]
        best = torch.linalg.solve_triangular(lower.T, self.owed[low:high], upper=True)
        choose(places, self.target[places] - best, lower.diagonal())


def _half(count: int, leaf: int) -> int:
    """Return about half of a count, in whole leaves."""
    leaves = -(-count // leaf)
    return (leaves // 2) * leaf if leaves > 1 else count
