"""Gradients of the text's own loss, one block in memory: hidden states go forward, gradients back.

What enters each block and the gradient of what leaves it are files. A block is computed again on
the way back, window by window, so that the gradient of every window is seen by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import HiddenStates, MemoryBudget, create_states
from whet.calibrate.sweep import advance
from whet.model import decoder
from whet.model.block import Block
from whet.model.decoder import Head
from whet.model.family import find
from whet.model.linear import Linear
from whet.model.source import Source
from whet.train.apart import fixed, fixed_norm, unrounded
from whet.train.chunks import over_tokens
from whet.train.loss import Objective
from whet.train.trainable import Trained

ALONE = Objective(alpha=1.0)  # the text is all that teaches


@dataclass(slots=True, eq=False)
class Moments:
    """Means over windows of the size of a weight's gradient, and of its square."""

    size: Float[Tensor, "out in"]
    square: Float[Tensor, "out in"]
    windows: int = 0

    @classmethod
    def of(cls, linear: Linear) -> "Moments":
        """Return those of no window."""
        return cls(torch.zeros(linear.shape), torch.zeros(linear.shape))

    def add(self, gradient: Float[Tensor, "out in"]) -> None:
        """Account for a window."""
        self.windows += 1
        self.size += (gradient.abs() - self.size) / self.windows
        self.square += (gradient.square() - self.square) / self.windows


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """A block that the gradients have come through, and what they were at its linears, by role."""

    layer: int
    block: Block
    moments: Mapping[str, Moments]


def gradients(
    source: Source,
    ids: Int64[Tensor, "samples time"],
    folder: Path,
    heed: Callable[[float, str], None],
    budget: MemoryBudget | None = None,
) -> Iterator[Passed]:
    """Yield the blocks of a model, the last one first.

    The loss of a window is the mean surprise by its next tokens.
    Law: these are the gradients of the whole model.
    """
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    budget = MemoryBudget() if budget is None else budget
    states = list(_entering(source, ids, folder, heed, budget))
    back = _at_the_end(source, ids, states.pop(), folder / "back-0.bin")
    for layer in reversed(range(arch.layers)):
        heed(1 - (layer + 1) / (2 * arch.layers), f"gradients of block {layer + 1}")
        block = decoder.block(source, family, arch, layer)
        into = back.like(folder / f"back-{arch.layers - layer}.bin")
        yield Passed(layer, block, _through(block, states[layer], back, into))
        states[layer].delete()
        back.delete()
        back = into
    back.delete()


@torch.no_grad()
def _entering(
    source: Source,
    ids: Tensor,
    folder: Path,
    heed: Callable[[float, str], None],
    budget: MemoryBudget,
) -> Iterator[HiddenStates]:
    """Yield what enters each block, and what leaves the last."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    first = decoder.embedding(source, family, arch)
    shape = len(ids), ids.shape[1] - 1, arch.hidden
    states = create_states(folder / "state-0.bin", shape, budget=budget)
    for window in range(len(ids)):
        states.write(window, first(ids[window : window + 1, :-1]))
    yield states
    for layer in range(arch.layers):
        heed(layer / (2 * arch.layers), f"states of block {layer + 1}")
        block = decoder.block(source, family, arch, layer)
        states = advance(block, Carried(states), folder / f"state-{layer + 1}.bin", 1)
        yield states


def _at_the_end(source: Source, ids: Tensor, left: HiddenStates, path: Path) -> HiddenStates:
    """Return the gradient of each window's loss by what leaves the last block."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    made = decoder.head(source, family, arch)
    with torch.inference_mode(mode=False):
        norm = None if made.norm is None else fixed_norm(made.norm)
        head = Head(arch, made.site, fixed(made.linear), norm, made.name)
    back = left.like(path)
    for window in range(len(ids)):
        with torch.inference_mode(mode=False), torch.enable_grad():
            hidden = left.read(window, window + 1).requires_grad_()
            targets = ids[window, 1:].clone()
            loss = over_tokens(hidden[0], head, _nothing, targets, ALONE, arch.vocab)
            (found,) = torch.autograd.grad(loss, hidden)
        back.write(window, found)
    left.delete()
    return back


def _through(
    block: Block, came: HiddenStates, back: HiddenStates, into: HiddenStates
) -> dict[str, Moments]:
    """Return the moments of a block's gradients; those of what entered it are written."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        made = unrounded(block, tuple(block.linears))
        moments = {role: Moments.of(linear) for role, linear in made.linears.items()}
        trained = {r: one.master for r, one in made.linears.items() if isinstance(one, Trained)}
        for window in range(came.samples):
            hidden = came.read(window, window + 1).requires_grad_()
            made(hidden).backward(back.read(window, window + 1))
            for role, master in trained.items():
                own = master.grad  # an expert that reads nothing of a window has none
                moments[role].add(torch.zeros_like(master) if own is None else own)
                master.grad = None
            assert hidden.grad is not None
            into.write(window, hidden.grad)
    return moments


def _nothing(part: slice) -> None:
    """Say nothing of any token: the text alone teaches."""
