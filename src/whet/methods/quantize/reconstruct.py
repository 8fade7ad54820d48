"""Block reconstruction: what a block has become learns to give what the original block gave.

Codes are found again by descent on the block's output, from the codes that earlier steps have left:
AutoRound (arXiv:2309.05516, §3) trains where each weight is rounded, EfficientQAT's first phase
(arXiv:2407.11062, §3.2) rounding and scales together; BRECQ (arXiv:2102.05426, §3.2) says why the
block is the right piece. The input is what the compressed model gives, the target what the original
gave, so that a block also makes good what the blocks before it have lost.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.quantity import Quantity
from whet.base.seed import stream_seed
from whet.formats.weight import Weight
from whet.model.block import Block
from whet.passes.block_pass import BlockPass, Change, Flow, Observe
from whet.passes.linear_pass import says
from whet.train.apart import unrounded
from whet.train.forward import mixed
from whet.train.rounding import STEADY, Rounded
from whet.train.schedule import share
from whet.train.text import Reader
from whet.train.trainable import Trained

JUDGED = 32  # samples, at most, over which the result is compared with the beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruct(BlockPass):
    """Train codes and scales, or unrounded weights, on the block's output; after other steps."""

    name: ClassVar[str] = "reconstruct"
    follows: ClassVar[bool] = True
    steps: int = field(default=200, metadata=says("steps of descent for each block [1]"))
    batch: int = field(default=4, metadata=says("calibration windows a step [1]"))
    lr: float = field(
        default=0.01, metadata=says("mean step of codes before they are rounded, ÷ scale [1]")
    )
    lr_scale: float = field(default=0.002, metadata=says("greatest relative step of a scale [1]"))
    lr_weight: float = field(
        default=0.002, metadata=says("greatest step of an unrounded weight, ÷ their size [1]")
    )

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("lr", "lr_scale", "lr_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")

    def rewrite(self, block: Block, roles: tuple[str, ...], observe: Observe) -> Change:
        """Return the weights that were found, if the block's output is nearer with them."""
        assert isinstance(observe, Flow), "the executor gives passes that follow a flow"
        with torch.inference_mode(mode=False), torch.enable_grad():
            return self._reconstructed(block, roles, observe)

    def _reconstructed(self, block: Block, roles: tuple[str, ...], flow: Flow) -> Change:
        student = unrounded(block, roles)
        judged = torch.linspace(0, flow.samples - 1, min(JUDGED, flow.samples)).long()
        before = _loss(student, flow, judged, self.batch)
        self._descend(student, flow, block.layer)
        after = _loss(student, flow, judged, self.batch)
        place = "block"
        how = "mean over tokens of ‖y − ỹ‖² ÷ ‖ỹ‖², of what leaves the block"
        facts = {
            place: {
                "block_error_before": Quantity(before, "1", how),
                "block_error": Quantity(min(after, before), "1", how),
                "steps": Quantity(self.steps, "1", "steps of descent"),
            }
        }
        if not after < before:
            why = f"left as it was: descent took the block's error from {before:.3g} to {after:.3g}"
            return Change(facts=facts, fallbacks={place: why})
        return Change(weights=_weights(student, roles), facts=facts)

    def _descend(self, student: Block, flow: Flow, layer: int) -> None:
        """Train in place."""
        optimizer = torch.optim.Adam(self._groups(student), betas=(0.9, 0.95))
        peaks = [group["lr"] for group in optimizer.param_groups]
        reader = Reader(
            torch.arange(flow.samples)[:, None], self.batch, stream_seed(layer, "reconstruct")
        )
        for step in range(self.steps):
            numbers = reader.numbers(step)
            optimizer.zero_grad(set_to_none=True)
            with mixed(student.arch.hidden):
                error, whole = _errors(student, flow, numbers)
            (error / whole).backward()
            rate = share(step, self.steps, "cosine", 0.05)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate
            optimizer.step()
            for linear in student.linears.values():
                if isinstance(linear, Rounded):
                    linear.settle()

    def _groups(self, student: Block) -> list[dict[str, object]]:
        """Return what is trained, with its learning rate."""
        groups: list[dict[str, object]] = []
        for linear in student.linears.values():
            if isinstance(linear, Rounded):
                groups.append({"params": [linear.growth], "lr": self.lr_scale})
                if linear.moves:
                    rate = self.lr * (1 + STEADY)
                    groups.append({"params": [linear.latent], "lr": rate, "eps": STEADY})
            elif isinstance(linear, Trained):
                size = float(linear.master.detach().square().mean().sqrt())
                groups.append({"params": [linear.master], "lr": self.lr_weight * size})
        return groups


def _weights(student: Block, roles: tuple[str, ...]) -> dict[str, Weight]:
    found: dict[str, Weight] = {}
    for role in roles:
        linear = student.linears[role]
        if isinstance(linear, Rounded | Trained):
            found[role] = linear.coded()
    return found


def _errors(student: Block, flow: Flow, numbers: Int64[Tensor, "batch"]) -> tuple[Tensor, Tensor]:
    """Return the sum of ‖y − ỹ‖² ÷ ‖ỹ‖² over the tokens of some samples, and how many there are.

    Every token counts alike: the next block normalises what it reads.
    """
    target = flow.leaving(numbers)
    made = student(flow.entering(numbers)).float()
    size = target.square().sum(-1).clamp(min=1e-12)
    ratio = (made - target).square().sum(-1) / size
    return ratio.sum(), torch.tensor(float(ratio.numel()))


@torch.no_grad()
def _loss(student: Block, flow: Flow, numbers: Int64[Tensor, "some"], batch: int) -> float:
    error = whole = 0.0
    for some in numbers.split(batch):
        lost, energy = _errors(student, flow, some)
        error, whole = error + float(lost), whole + float(energy)
    return error / whole if whole else 0.0
