"""How strongly the model's predictions feel each linear's output, token by token.

One forward and one backward pass over a few windows, block by block, with what leaves each block on
disk, so that memory does not grow with the model. Labels are drawn from the model's own predictions:
the expected square of the gradient is then the Fisher information, and half of its product with a
small change of an output is the KL divergence that the change costs (Kunstner, Balles, Hennig,
arXiv:1905.12558, §2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jaxtyping import Float, Int64
from torch import Tensor

from whet.calibrate.backward import BackwardPass, Report
from whet.calibrate.hidden_states import HiddenStates, MemoryBudget, open_states
from whet.kernels.linear import multiplied
from whet.model.source import Source
from whet.store.array import stored
from whet.store.dtypes import tensor_of
from whet.store.shard import Shard
from whet.store.writer import write_shard


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
        states = self.entered()
        return states.read(0, states.samples)

    def entered(self) -> HiddenStates:
        """Return the same, to be read in parts."""
        return open_states(self.folder / "gradient.bin", MemoryBudget(0))

    def leaving(self) -> HiddenStates:
        """Return what the head reads."""
        return open_states(self.folder / "leaving.bin", MemoryBudget(0))


def gradients(
    source: Source, ids: Int64[Tensor, "samples time"], folder: Path, seed: int, report: Report
) -> Gradients:
    """Go through a model and back; what every linear reads and feels is left in `folder`.

    Law: `Felt.change` of a small Δ is the change of the log-likelihood that finite differences show.
    """
    walk = BackwardPass(source, ids, folder, seed, report, MemoryBudget(0))
    for found in walk.blocks():
        pairs = {f"{role}/x": x for role, x in found.inputs.items()}
        pairs |= {f"{role}/g": g for role, g in found.gradients.items()}
        write_shard(_path(folder, found.layer), pairs)
    return Gradients(folder, ids)


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
