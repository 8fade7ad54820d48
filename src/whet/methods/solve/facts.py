"""What is known of a weight that a second-order method has made."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.methods.solve.factor import Factor
from whet.methods.solve.slabs import slabs


class Facts(Mapping[str, Quantity]):
    """Facts that are computed when they are first read: who only compares weights does without."""

    def __init__(self, made: Callable[[], dict[str, Quantity]]) -> None:
        self._made = made

    @cached_property
    def _facts(self) -> dict[str, Quantity]:
        return self._made()

    def __getitem__(self, name: str) -> Quantity:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def told(
    weight: Float[Tensor, "out in"],
    target: Float[Tensor, "in out"],
    shift: Float[Tensor, "out"],
    found: Factor,
    values: Float[Tensor, "in out"],
) -> dict[str, Quantity]:
    """Return the error, how far the target was from the weight, and the damping."""
    some = slabs(values.shape[1], len(values))
    lost = torch.cat([loss(found, values[:, s] - target[:, s]) for s in some])
    whole = loss(found, weight.T)
    return {
        "output_error": share(lost, whole, "tr((Q-T)H(Q-T)ᵀ) ÷ tr(WHWᵀ), T the target"),
        "target_shift": share(shift, whole, "tr((T-W)H(T-W)ᵀ) ÷ tr(WHWᵀ)"),
        "damping": Quantity(found.damping, "1", "ridge ÷ mean of H's diagonal"),
    }


def loss(found: Factor, delta: Float[Tensor, "in out"]) -> Float[Tensor, "out"]:
    """Return δᵀ H δ of each column, without the ridge."""
    parts = (delta[:, some] for some in slabs(delta.shape[1], len(delta)))
    return torch.cat([found.energy(part) - found.ridge * part.square().sum(0) for part in parts])


def share(part: Tensor, whole: Tensor, how: str) -> Quantity:
    """Return a share of the output's energy."""
    total = float(whole.double().sum())
    return Quantity(max(float(part.double().sum()) / total, 0.0) if total > 0 else 0.0, "1", how)


def raised(found: Factor) -> str | None:
    """Return that damping had to be greater than what was asked for, if it had."""
    if found.raised:
        return f"damping raised to {found.damping:g}, since H had no Cholesky factor below"
    return None
