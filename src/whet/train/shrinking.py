"""Weights that are pruned while they are trained, a few more at each step, and never come back."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whet.train.sharded import local, piece, whole
from whet.train.trainable import Trained

Criterion = Literal["magnitude", "movement"]
Penalty = Literal["none", "l1", "group"]


def pruned_share(step: int, steps: int, final: float, settle: float) -> float:
    """Return the share of weights that are zero after a step (Zhu, Gupta, arXiv:1710.01878, eq. 1).

    It grows as 1 - (1 - t)³ up to `final`, which is reached with a share `settle` of the steps left.
    Law: never falls, and ends at `final`.
    """
    t = min(1.0, (step + 1) / max(1.0, steps * (1 - settle)))
    return final * (1 - (1 - t) ** 3)


@dataclass(frozen=True, slots=True, eq=False)
class Shrinking:
    """A matrix under descent: what is left of it, and how much each weight is worth.

    magnitude: |w|. movement (Sanh, Wolf, Rush, arXiv:2005.07683, §4): -Σ w · ∂L/∂w over the steps,
    which is large for weights that move away from zero.
    Penalties: l1, strength · Σ|w|; group, strength · Σ ‖row‖ (arXiv:1608.03665, §3).
    """

    linear: Trained
    kept: Tensor
    score: Tensor
    criterion: Criterion
    penalty: Penalty
    strength: float

    @classmethod
    def of(
        cls, linear: Trained, criterion: Criterion, penalty: Penalty, strength: float
    ) -> "Shrinking":
        """Begin with a linear; what is zero already counts as pruned."""
        kept = linear.master.detach() != 0
        score = torch.zeros_like(kept, dtype=torch.float32)
        return cls(linear, kept, score, criterion, penalty, strength)

    @torch.no_grad()
    def heed(self) -> None:
        """Learn from a step's gradient, and add that of the penalty, of the weights that are left."""
        assert self.linear.master.grad is not None
        weight, gradient = local(self.linear.master), local(self.linear.master.grad)
        if self.criterion == "movement":
            local(self.score).sub_(weight * gradient)
        if self.penalty == "l1":
            gradient.add_(self.strength * weight.sign())
        elif self.penalty == "group":
            length = weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
            gradient.add_(self.strength * weight / length)
        gradient.mul_(local(self.kept))

    @torch.no_grad()
    def prune(self, share: float) -> None:
        """Set weights of least worth to zero until `share` of all are. Law: exact to the weight."""
        kept, weight = whole(self.kept), self.linear.master
        count = round(share * kept.numel()) - int((~kept).sum())
        if count > 0:
            worth = whole(weight.detach().abs() if self.criterion == "magnitude" else self.score)
            worth = worth.masked_fill(~kept, torch.inf)
            kept.view(-1)[worth.flatten().topk(count, largest=False).indices] = False
            local(self.kept).copy_(piece(kept, self.kept))
        local(weight).mul_(local(self.kept))
