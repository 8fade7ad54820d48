"""Exact coordinate descent on tr((Q-T) H (Q-T)ᵀ): one code, one scale, one zero point at a time.

Each step goes to the lowest point of a parabola that the format can write, so the loss never rises.
The gradient G = (H + ridge·I)(Q - T) is carried along. Inputs are taken slab by slab; within a slab
only the slab's own part of H is read, and what changed there is then carried to all other inputs at
once, in one product of large matrices.

Codes: QuantEase (arXiv:2309.01885, §3). Scales: least squares for fixed codes, one group at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whet.methods.solve.lattice import Lattice
from whet.methods.solve.native import native_sweep

LEAF = 16  # inputs whose gradients are updated one by one
SLAB = 128  # inputs of a slab, in whole groups
WIDEST = 512  # a group up to this width is a slab of its own; the scales of wider ones come last


@dataclass(eq=False)
class Descent:
    """A weight on its way down: `values` and `lattice` are changed in place.

    Law: neither `sweep` nor `settle` raises the loss, but for rounding errors.
    Law: when `sweep` changes no code, no change of one code lowers the loss.
    """

    target: Float[Tensor, "in out"]
    values: Float[Tensor, "in out"]
    H: Float[Tensor, "in in"]
    ridge: float
    lattice: Lattice

    def __post_init__(self) -> None:
        self.gradient = torch.empty_like(self.target)
        self.local = self.lattice.group <= WIDEST
        self.refresh()

    def refresh(self) -> None:
        """Compute the gradient anew, free of the rounding errors of its updates."""
        delta = self.values - self.target
        torch.mm(self.H, delta, out=self.gradient)
        self.gradient.add_(delta, alpha=self.ridge)

    def loss(self, *, damped: bool = True) -> Float[Tensor, "out"]:
        """Return the loss of each output, with or without the ridge."""
        delta = self.values - self.target
        loss = (delta * self.gradient).sum(0)
        return loss if damped else loss - self.ridge * delta.square_().sum(0)

    def sweep(self, *, settle: bool = True) -> int:
        """Choose every code anew, then (if asked) scales; return how many codes changed."""
        if (found := self._native(recode=True, settle=settle)) is not None:
            return found
        changed = 0
        for slab in self._slabs(self.lattice.group if self.local else 1):
            changed += slab.recode()
            if settle and self.local:
                slab.settle()
            slab.spread()
        if settle and not self.local:
            self.settle()
        return changed

    def settle(self) -> None:
        """Choose every scale and zero point anew for the codes as they are."""
        if self._native(recode=False, settle=True) is not None:
            return
        for slab in self._slabs(self.lattice.group):
            slab.settle()
            slab.spread()

    def _native(self, *, recode: bool, settle: bool) -> int | None:
        """Sweep by the native extension, where it knows the format; return how many codes changed."""
        slab = _width(self.lattice.group if self.local else 1)
        return native_sweep(
            self.values, self.gradient, self.H, self.ridge, self.lattice,
            recode=recode, settle=settle, local=self.local, slab=slab,
        )  # fmt: skip

    def _slabs(self, unit: int) -> Iterator["_Slab"]:
        width = _width(unit)
        for start in range(0, len(self.target), width):
            yield _Slab(self, start, min(start + width, len(self.target)))


def _width(unit: int) -> int:
    """Return how many inputs a slab of whole units has."""
    return unit * max(1, SLAB // unit)


class _Slab:
    """Some neighbouring inputs, with the part of the gradient that they need."""

    def __init__(self, whole: Descent, start: int, stop: int) -> None:
        self.whole, self.lattice, self.start, self.stop = whole, whole.lattice, start, stop
        self.values = whole.values[start:stop]
        self.before = self.values.clone()
        self.gradient = whole.gradient[start:stop].clone()
        self.H = whole.H[start:stop, start:stop]

    def recode(self) -> int:
        """Choose each code anew, one input after the other; return how many changed."""
        pivots = (self.H.diagonal() + self.whole.ridge).tolist()
        for low in range(0, len(self.values), LEAF):
            self._leaf(low, min(low + LEAF, len(self.values)), pivots)
        return int((self.values != self.before).sum())

    def _leaf(self, low: int, high: int, pivots: list[float]) -> None:
        gradient, own = self.gradient[low:high].clone(), self.H[low:high, low:high]
        moved = torch.zeros_like(gradient)
        for k in range(high - low):
            j = low + k
            if pivots[j] > 0:
                wanted = torch.add(self.values[j], gradient[k], alpha=-1 / pivots[j])
                found = self.lattice.nearest(wanted, self.start + j)
                torch.sub(found, self.values[j], out=moved[k])
                self.values[j] = found
                gradient[k + 1 :].addr_(own[k, k + 1 :], moved[k])
        self._move(low, high, moved)

    def settle(self) -> None:
        """Move scale and zero point of each group to the best that can be stored."""
        for low in range(0, len(self.values), self.lattice.group):
            high = min(low + self.lattice.group, len(self.values))
            self._rescale(low, high)
            if self.lattice.moves_zero:
                self._rezero(low, high)

    def _rescale(self, low: int, high: int) -> None:
        """Change a scale by δ: along the units u of its group the loss gains 2δ uᵀG + δ² uᵀHu."""
        place = (self.start + low) // self.lattice.group
        unit = self.lattice.unit(self.values[low:high], place)
        slope = self.lattice.pooled((unit * self.gradient[low:high]).sum(0))
        curve = self.lattice.pooled((unit * self._pull(low, high, unit)).sum(0))
        old = self.lattice.scale[place]
        new = self.lattice.stored(old - slope / curve.clamp(min=torch.finfo(curve.dtype).tiny))
        step = new - old
        better = (curve > 0) & (2 * step * slope + step.square() * curve < 0)
        self.lattice.scale[place] = torch.where(better, new, old)
        self._replace(low, high, unit * self.lattice.scale[place])

    def _rezero(self, low: int, high: int) -> None:
        """Move a zero point by one step, which moves all values of its group by one scale."""
        lattice, place = self.lattice, (self.start + low) // self.lattice.group
        assert lattice.zero is not None
        ones = torch.ones(high - low, 1, dtype=self.gradient.dtype)
        bend = float(self._pull(low, high, ones).sum())
        slope, old = self.gradient[low:high].sum(0), lattice.zero[place]
        best, gain = old, torch.zeros_like(lattice.pooled(slope))
        for shift in (-1, 1):
            new = (old + shift).clamp(0, lattice.top)
            step = -lattice.scale[place] * (new - old)
            change = lattice.pooled(2 * step * slope + step.square() * bend)
            best, gain = torch.where(change < gain, new, best), torch.minimum(gain, change)
        unit = lattice.unit(self.values[low:high], place) + (old - best)
        lattice.zero[place] = best
        self._replace(low, high, unit * lattice.scale[place])

    def _pull(self, low: int, high: int, moved: Tensor) -> Tensor:
        """Return what the group's own part of H + ridge·I makes of a change of the group."""
        return torch.addmm(moved, self.H[low:high, low:high], moved, beta=self.whole.ridge)

    def _replace(self, low: int, high: int, values: Tensor) -> None:
        moved = values - self.values[low:high]
        self.values[low:high] = values
        self._move(low, high, moved)

    def _move(self, low: int, high: int, moved: Tensor) -> None:
        """Carry a change of some inputs to the gradient of the slab."""
        self.gradient.addmm_(self.H[:, low:high], moved)
        self.gradient[low:high].add_(moved, alpha=self.whole.ridge)

    def spread(self) -> None:
        """Carry what has changed here to the gradient of all inputs."""
        if len(self.values) == len(self.whole.values):
            self.whole.gradient.copy_(self.gradient)
            return
        moved = self.values - self.before
        self.whole.gradient.addmm_(self.whole.H[:, self.start : self.stop], moved)
        self.whole.gradient[self.start : self.stop].add_(moved, alpha=self.whole.ridge)
