"""A narrower residual stream: the same channels go from embeddings, norms and all linears.

Channels are worth the energy that they have after the norms (arXiv:2407.14679, §2.2).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import lcm
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Gram
from whet.calibrate.walk import Stop, walk
from whet.methods.solve.removal import refitted
from whet.model import decoder, fields
from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.model.norm import Norm
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task


@dataclass(slots=True, eq=False)
class Energy:
    """Sums of squares of what enters and what leaves a norm, channel by channel."""

    entering: Tensor
    leaving: Tensor

    @staticmethod
    def of(norm: Norm, hidden: int) -> "Energy":
        """Watch a norm from now on."""
        seen = Energy(
            torch.zeros(hidden, dtype=torch.float64), torch.zeros(hidden, dtype=torch.float64)
        )

        def see(_: Norm, given: tuple[Tensor, ...], left: Tensor) -> None:
            seen.entering += given[0].double().square().flatten(0, -2).sum(0)
            seen.leaving += left.double().square().flatten(0, -2).sum(0)

        norm.register_forward_hook(see)
        return seen

    def rise(self, kept: Int64[Tensor, "kept"]) -> float:
        """Return by how much the root mean square grows when only some channels are left [1]."""
        whole = float(self.entering.mean())
        return (float(self.entering[kept].mean()) / whole) ** 0.5 if whole else 1.0


Energies = Mapping[tuple[int | None, str], Energy]  # (layer, role); the last norm has no layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden(ModelPass):
    """Remove a share of the channels of the residual stream, the same ones everywhere.

    A channel is worth the energy that it has after the norms, summed over all of them.
    Gains make up for the norms' root mean square over fewer channels, and
    linears that read the stream are fitted to the channels left.
    Law: channels that are zero throughout cost nothing.
    """

    name: ClassVar[str] = "hidden"

    share: float = field(default=0.125, metadata=says("of the channels to remove [1]"))
    multiple: int = field(default=32, metadata=says("channels are left in multiples of this [1]"))
    refit: bool = field(default=True, metadata=says("fit the linears to the channels left"))
    damping: float = field(default=0.01, metadata=says("ridge ÷ mean of the Gram's diagonal [1]"))
    samples: int = field(default=64, metadata=says("calibration windows [1]"))
    length: int = field(default=512, metadata=says("tokens a window [token]"))

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.share < 1 or self.multiple < 1:
            raise ValueError("share must be between 0 and 1, multiple at least 1")

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        family = find(config)
        arch = family.architecture(config)
        if fields.field(family.name, "head_dim") is None:
            return f"in {family.name}, heads share out all channels, so none can be left out"
        left = self._left(family.name, arch)
        if left >= arch.hidden:
            return (
                f"of {arch.hidden} channels {self.share:.0%} are to go, and the nearest that can "
                f"stay are {left}; take another share or multiple"
            )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        arch = family.architecture(config)
        left = self._left(family.name, arch)
        return fields.resized(config, family.name, hidden=left, head_dim=arch.head_dim)

    def _left(self, family: str, arch: Architecture) -> int:
        heads = arch.heads if family in fields.WHOLE_HEADS else 1
        step = lcm(self.multiple, heads)
        return max(1, round(arch.hidden * (1 - self.share) / step)) * step

    def run(self, task: Task) -> Outcome:
        """Return the model with a narrower stream."""
        facts: dict[str, dict[str, Quantity]] = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    def _tensors(
        self, task: Task, facts: dict[str, dict[str, Quantity]]
    ) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        energies = _energies(task, ids, cutting.old)
        worth = sum((_normal(seen.leaving) for seen in energies.values()), torch.zeros(1))
        best = worth.argsort(descending=True, stable=True)[: cutting.new.hidden]
        kept = best.sort().values
        left = float(worth[kept].sum() / worth.sum())
        facts[""] = {"energy_kept": Quantity(left, "1", "of what leaves the norms, mean over them")}
        yield from cutting.ends(self._ends(cutting, energies, kept))
        for stop in walk(task.source, ids, task.work, budget=task.budget):
            task.heed(0.5 + stop.layer / (2 * cutting.old.layers), f"block {stop.layer + 1}")
            gains = _gains(stop.block.norms, energies, stop.layer, kept)
            weights = self._fitted(stop, kept) if self.refit else {}
            yield from cutting.block(
                stop.layer, Piece(stop.layer, {"hidden": kept}, weights, {}, gains)
            )

    def _fitted(self, stop: Stop, kept: Int64[Tensor, "kept"]) -> dict[str, Tensor]:
        """Return the linears that read the stream, fitted to what is left of it."""
        grams: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for tap in stop.block.taps:
            if tap in ("attn.in", "mlp.in"):
                grams[tap] = stop.look(tap, Gram)[Gram].mean()
        for site in stop.block.sites:
            if site.inp == "hidden":
                weight = stop.block.linears[site.role].weight.dense().clone()
                gram = grams["attn.in" if site.tap == "attn.in" else "mlp.in"]
                weight[:, kept] = refitted(weight, gram, kept, self.damping)
                found[site.role] = weight
        return found

    def _ends(self, cutting: Cutting, energies: Energies, kept: Int64[Tensor, "kept"]) -> Piece:
        """Return what stays outside the blocks; scaled embeddings keep their size."""
        arch, weights = cutting.old, dict[str, Tensor]()
        head = decoder.head(cutting.source, cutting.family, arch)
        gains = {} if head.norm is None else _gains({"norm": head.norm}, energies, None, kept)
        if arch.embedding_scale != 1.0:
            scale = arch.embedding_scale / cutting.new.embedding_scale
            embed = cutting.source.weight(cutting.family.embed_site(arch)).dense()
            weights["embed"] = embed * scale
            if arch.tied and head.norm is not None:
                offset = head.norm.kind.offset
                gains["norm"] = (gains["norm"] + offset) / scale - offset
        return Piece(0, {"hidden": kept}, weights, {}, gains)


def _normal(energy: Float[Tensor, "hidden"]) -> Float[Tensor, "hidden"]:
    return energy / energy.sum().clamp(min=1e-30)


def _energies(task: Task, ids: Int64[Tensor, "samples time"], arch: Architecture) -> Energies:
    """Return what goes through every norm of the residual stream."""
    found: dict[tuple[int | None, str], Energy] = {}
    head = decoder.head(task.source, find(task.source.config), arch)
    if head.norm is not None:
        found[None, "norm"] = Energy.of(head.norm, arch.hidden)
    for stop in walk(task.source, ids, task.work, budget=task.budget):
        task.heed(stop.layer / (2 * arch.layers), f"block {stop.layer + 1}")
        for role, norm in stop.block.norms.items():
            if role not in ("attn.q.norm", "attn.k.norm"):
                found[stop.layer, role] = Energy.of(norm, arch.hidden)
        if stop.layer == arch.layers - 1:
            for left in stop.leaving():
                if head.norm is not None:
                    head.norm(left)
    return found


def _gains(
    norms: Mapping[str, Norm], energies: Energies, layer: int | None, kept: Int64[Tensor, "kept"]
) -> dict[str, Tensor]:
    """Return gains that undo what fewer channels do to the root mean square."""
    found: dict[str, Tensor] = {}
    for role, norm in norms.items():
        seen, gain = energies.get((layer, role)), norm.gain()
        if seen is not None and gain is not None:
            found[role] = gain * seen.rise(kept) - norm.kind.offset
    return found
