"""One forward and one backward pass, block by block: inputs of linears, and gradients at their outputs.

Labels are drawn from the model's own predictions: the expected square of the gradient is then the
Fisher information, and half of its product with a small change of an output is the KL divergence
that the change causes (Kunstner, Balles, Hennig, arXiv:1905.12558, §2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from whet.base.seed import stream_seed
from whet.calibrate.hidden_states import HiddenStates, MemoryBudget, create_states
from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder
from whet.model.architecture import Architecture
from whet.model.block import Block
from whet.model.family import Family, find
from whet.model.source import Source

ROWS = 256  # tokens whose predictions are held at a time
TOKENS_AT_ONCE = 1024
Report = Callable[[float, str], None]  # (fraction that is done, what is under way)


@dataclass(frozen=True, slots=True, eq=False)
class BlockGradients:
    """A block, and for each linear by role its input and the gradient at its output (bfloat16)."""

    layer: int
    block: Block
    inputs: dict[str, Float[Tensor, "tokens in"]]
    gradients: dict[str, Float[Tensor, "tokens out"]]


@dataclass(frozen=True, slots=True, eq=False)
class BackwardPass:
    """The two passes. `states[layer]` enters a block; the last enters the head.

    `entering` and `leaving` are left when all blocks are done: the gradient at the embedding's
    output, and the hidden states that the head reads.
    """

    source: Source
    ids: Int64[Tensor, "samples time"]
    folder: Path
    seed: int
    report: Report
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    states: list[HiddenStates] = field(default_factory=list[HiddenStates])
    gradient: list[HiddenStates] = field(default_factory=list[HiddenStates])

    def blocks(self) -> Iterator[BlockGradients]:
        """Yield the blocks from the last to the first.

        Law: gᵀ Δ x of a small change Δ is the change of the log-likelihood that finite differences
        show.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with arithmetic(usual(self._arch.hidden)):
            self._forward()
            self._draw_labels()
        for layer in reversed(range(self._arch.layers)):
            with arithmetic(usual(self._arch.hidden)):
                found = self._back(layer)
            yield found

    def entering(self) -> HiddenStates:
        """Return the gradient at the embedding's output."""
        return self.gradient[0]

    def leaving(self) -> HiddenStates:
        """Return the hidden states that the head reads."""
        return self.states[-1]

    def delete(self) -> None:
        """Release the memory and remove the files."""
        for states in (*self.states, *self.gradient):
            states.delete()

    @property
    def _family(self) -> Family:
        return find(self.source.config)

    @property
    def _arch(self) -> Architecture:
        return self._family.architecture(self.source.config, self.source.names())

    @property
    def _batch(self) -> int:
        return max(1, TOKENS_AT_ONCE // self.ids.shape[1])

    def _create(self, name: str) -> HiddenStates:
        shape = (len(self.ids), self.ids.shape[1], self._arch.hidden)
        return create_states(self.folder / f"{name}.bin", shape, budget=self.budget)

    def _block(self, layer: int) -> Block:
        return decoder.block(self.source, self._family, self._arch, layer)

    def _tell(self, done: int, what: str) -> None:
        self.report(done / (2 * self._arch.layers + 1), what)

    @torch.no_grad()
    def _forward(self) -> None:
        """Keep what enters every block."""
        embedding = decoder.embedding(self.source, self._family, self._arch)
        entered = self._create("entering-0000")
        for start in range(0, len(self.ids), self._batch):
            entered.write(start, embedding(self.ids[start : start + self._batch]))
        self.states.append(entered)
        del embedding
        for layer in range(self._arch.layers):
            self._tell(layer, f"gradients, forward, block {layer + 1}")
            block, last = self._block(layer), layer + 1 == self._arch.layers
            onward = self._create("leaving" if last else f"entering-{layer + 1:04d}")
            for start, hidden in self.states[-1].chunks(self._batch):
                onward.write(start, block(hidden))
            self.states.append(onward)

    def _draw_labels(self) -> None:
        """Draw a label for each token, and keep the gradient at what the head reads."""
        self._tell(self._arch.layers, "gradients, head")
        tied = self._arch.tied
        embedding = decoder.embedding(self.source, self._family, self._arch) if tied else None
        head = decoder.head(self.source, self._family, self._arch, embedding)
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "labels"))
        gradient = self._create("gradient")
        for start, hidden in self.states[-1].chunks(1):
            rows = [_head_gradient(head, part, generator) for part in hidden[0].split(ROWS)]
            gradient.write(start, torch.cat(rows)[None])
        self.gradient.append(gradient)

    def _back(self, layer: int) -> BlockGradients:
        """Go back through a block; its gradients at the input replace those at the output."""
        self._tell(2 * self._arch.layers - layer, f"gradients, back, block {layer + 1}")
        block = self._block(layer)
        inputs: dict[str, list[Tensor]] = {}
        outputs: dict[str, list[Tensor]] = {}
        for start, hidden in self.states[layer].chunks(self._batch):
            left = self.gradient[0].read(start, start + self._batch)
            entered, x, g = differentiate(block, hidden, left)
            self.gradient[0].write(start, entered)
            for role in g:
                inputs.setdefault(role, []).append(x[role].bfloat16())
                outputs.setdefault(role, []).append(g[role].bfloat16())
        if layer:
            self.states[layer].delete()
        return BlockGradients(layer, block, _joined(inputs), _joined(outputs))


def _joined(parts: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    return {role: torch.cat(some) for role, some in parts.items()}


def _head_gradient(head: decoder.Head, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Return the gradient of the log-likelihood of drawn labels at what the head reads."""
    read = hidden.detach().requires_grad_()
    with torch.enable_grad():
        log = head(read).float().log_softmax(-1)
        labels = torch.multinomial(log.detach().exp(), 1, generator=generator)
        likelihood = log.gather(-1, labels).sum()
    (found,) = torch.autograd.grad(likelihood, read)
    return found


def differentiate(
    block: Block, hidden: Tensor, left: Tensor
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the gradient at a block's input, and by role the inputs of linears and their gradients.

    `left` is the gradient at the block's output.
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def look(role: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            inputs[role] = given[0].detach().flatten(0, -2)
            outputs[role] = out

        return hook

    entered = hidden.detach().requires_grad_()
    hooks = [linear.register_forward_hook(look(role)) for role, linear in block.linears.items()]
    with torch.enable_grad():
        leaving = block(entered)
    found = torch.autograd.grad(
        leaving, [entered, *outputs.values()], left, allow_unused=True, materialize_grads=True
    )
    for hook in hooks:
        hook.remove()
    pairs = zip(outputs, found[1:], strict=True)
    return found[0], inputs, {role: g.flatten(0, -2) for role, g in pairs}
