"""How strongly the model's predictions feel each linear's output, token by token.

One forward and one backward pass over a few windows, block by block, with what leaves each block on
disk, so that memory does not grow with the model. Labels are drawn from the model's own predictions:
the expected square of the gradient is then the Fisher information, and half of its product with a
small change of an output is the KL divergence that the change costs (Kunstner, Balles, Hennig,
arXiv:1905.12558, §2).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from whet.base.seed import stream_seed
from whet.calibrate.hidden_states import HiddenStates, MemoryBudget, create_states, open_states
from whet.kernels.arithmetic import arithmetic, usual
from whet.kernels.linear import multiplied
from whet.model import decoder
from whet.model.architecture import Architecture
from whet.model.block import Block
from whet.model.family import Family, find
from whet.model.source import Source
from whet.store.array import stored
from whet.store.dtypes import tensor_of
from whet.store.shard import Shard
from whet.store.writer import write_shard

ROWS = 256  # tokens whose predictions are held at a time
TOKENS_AT_ONCE = 1024
Heed = Callable[[float, str], None]  # (share that is done, what is under way)


@dataclass(frozen=True, slots=True, eq=False)
class Felt:
    """What a linear has read, and the gradient of the log-likelihood at its output, by token."""

    x: Float[Tensor, "tokens in"]
    g: Float[Tensor, "tokens out"]

    def change(
        self, delta: Float[Tensor, "out in"]
    ) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens"]]:
        """Return what a change of the weight does to each token: gᵀ Δ x and (Δ x)².

        The first is the change of the log-likelihood, the second that of the output.
        """
        moved = multiplied(self.x, delta.T)
        return (moved * self.g).sum(-1), moved.square().sum(-1)

    def energy(self, weight: Float[Tensor, "out in"]) -> float:
        """Return (W x)², summed over all tokens."""
        return float(multiplied(self.x, weight.T).square().sum(-1).double().sum())

    def moved(
        self, weight: Float[Tensor, "out in"], dx: Float[Tensor, "tokens in"]
    ) -> Float[Tensor, "tokens"]:
        """Return gᵀ W Δx of each token: what a change of the input does."""
        return (multiplied(dx, weight.T) * self.g).sum(-1)


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """What a backward pass has left in a folder; read a block at a time."""

    folder: Path
    ids: Int64[Tensor, "samples time"]

    def block(self, layer: int) -> dict[str, Felt]:
        """Return what each linear of a block has felt, by role."""
        shard = Shard(_path(self.folder, layer))
        held = {name: tensor_of(stored(shard, name)).float() for name in shard.tensors}
        roles = [name.removesuffix("/g") for name in held if name.endswith("/g")]
        return {role: Felt(held[f"{role}/x"], held[f"{role}/g"]) for role in roles}

    def entering(self) -> Float[Tensor, "samples time hidden"]:
        """Return the gradient at what the embedding gives."""
        states = open_states(self.folder / "gradient.bin")
        return states.read(0, states.samples)

    def leaving(self) -> HiddenStates:
        """Return what the head reads."""
        return open_states(self.folder / "leaving.bin", MemoryBudget(0))


def gradients(
    source: Source, ids: Int64[Tensor, "samples time"], folder: Path, seed: int, heed: Heed
) -> Gradients:
    """Go through a model and back; what every linear reads and feels is left in `folder`.

    Law: `Felt.change` of a small Δ is the change of the log-likelihood that finite differences show.
    """
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    folder.mkdir(parents=True, exist_ok=True)
    walk = _Walk(source, family, arch, ids, folder, heed)
    with arithmetic(usual(arch.hidden)):
        walk.forward()
        walk.turn(seed)
        for layer in reversed(range(arch.layers)):
            walk.back(layer)
    return Gradients(folder, ids)


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """The two passes. `states[layer]` is what enters a block; the last is what the head reads."""

    source: Source
    family: Family
    arch: Architecture
    ids: Tensor
    folder: Path
    heed: Heed
    states: list[HiddenStates] = field(default_factory=list[HiddenStates])

    @property
    def batch(self) -> int:
        return max(1, TOKENS_AT_ONCE // self.ids.shape[1])

    def _states(self, name: str) -> HiddenStates:
        shape = (len(self.ids), self.ids.shape[1], self.arch.hidden)
        return create_states(self.folder / f"{name}.bin", shape, budget=MemoryBudget(0))

    def _block(self, layer: int) -> Block:
        return decoder.block(self.source, self.family, self.arch, layer)

    def _told(self, done: int, what: str) -> None:
        self.heed(done / (2 * self.arch.layers + 1), what)

    @torch.no_grad()
    def forward(self) -> None:
        """Keep what enters every block."""
        embedding = decoder.embedding(self.source, self.family, self.arch)
        entered = self._states("entering-0000")
        for start in range(0, len(self.ids), self.batch):
            entered.write(start, embedding(self.ids[start : start + self.batch]))
        self.states.append(entered)
        del embedding
        for layer in range(self.arch.layers):
            self._told(layer, f"gradients, forward, block {layer + 1}")
            block, last = self._block(layer), layer + 1 == self.arch.layers
            onward = self._states("leaving" if last else f"entering-{layer + 1:04d}")
            for start, hidden in self.states[-1].chunks(self.batch):
                onward.write(start, block(hidden))
            self.states.append(onward)

    def turn(self, seed: int) -> None:
        """Draw a label for each token, and keep the gradient at what the head reads."""
        self._told(self.arch.layers, "gradients, head")
        head = _head(self.source, self.family, self.arch)
        chance = torch.Generator().manual_seed(stream_seed(seed, "labels"))
        gradient = self._states("gradient")
        for start, hidden in self.states[-1].chunks(1):
            rows = [_felt_by(head, part, chance) for part in hidden[0].split(ROWS)]
            gradient.write(start, torch.cat(rows)[None])

    def back(self, layer: int) -> None:
        """Go back through a block; keep what its linears have read and felt."""
        self._told(2 * self.arch.layers - layer, f"gradients, back, block {layer + 1}")
        block = self._block(layer)
        gradient = open_states(self.folder / "gradient.bin", MemoryBudget(0))
        kept: dict[str, list[Tensor]] = {}
        for start, hidden in self.states[layer].chunks(self.batch):
            left = gradient.read(start, start + self.batch)
            entered, seen = _backward(block, hidden, left)
            gradient.write(start, entered)
            for name, value in seen.items():
                kept.setdefault(name, []).append(value.bfloat16())
        write_shard(_path(self.folder, layer), {name: torch.cat(v) for name, v in kept.items()})
        if layer:
            self.states[layer].delete()


def _felt_by(head: decoder.Head, hidden: Tensor, chance: torch.Generator) -> Tensor:
    """Return the gradient of the log-likelihood of drawn labels at what the head reads."""
    read = hidden.detach().requires_grad_()
    with torch.enable_grad():
        log = head(read).float().log_softmax(-1)
        labels = torch.multinomial(log.detach().exp(), 1, generator=chance)
        likelihood = log.gather(-1, labels).sum()
    (found,) = torch.autograd.grad(likelihood, read)
    return found


def _backward(block: Block, hidden: Tensor, left: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the gradient at what enters a block, and `role/x` and `role/g` of each linear."""
    seen: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def look(role: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            seen[f"{role}/x"] = given[0].detach().flatten(0, -2)
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
    return found[0], seen | {f"{role}/g": g.flatten(0, -2) for role, g in pairs}


def _head(source: Source, family: Family, arch: Architecture) -> decoder.Head:
    tied = decoder.embedding(source, family, arch) if arch.tied else None
    return decoder.head(source, family, arch, tied)


def _path(folder: Path, layer: int) -> Path:
    return folder / f"felt-{layer:04d}.safetensors"


def costs(
    felt: Mapping[str, Felt],
    deltas: Mapping[str, Tensor],
    moved: Mapping[str, Tensor] = MappingProxyType({}),
) -> tuple[float, float]:
    """Return what changes of a block's linears cost together: in KL divergence [nat], and in output.

    Both are sums over tokens. `moved` is what changes of their inputs do besides. The first is half of
    the square of what they do to the log-likelihood; linears that have seen the same tokens are
    added up before squaring, others (experts) after. The second is that of (Δ x)².
    """
    spent = 0.0
    groups: dict[int, Tensor] = {}
    for role, delta in deltas.items():
        change, output = felt[role].change(delta)
        spent += float(output.double().sum())
        change = change + moved[role] if role in moved else change
        key = len(change)
        groups[key] = groups[key] + change if key in groups else change
    kl = sum(float(change.double().square().sum()) for change in groups.values()) / 2
    return kl, spent
