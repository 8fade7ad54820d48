"""Fewer layers: those whose absence changes least.

Greedily by what the model then predicts (arXiv:2402.09025), or at once by how little a layer turns
the residual stream (arXiv:2403.03853, §3.1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.walk import walk
from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder, fields, uneven
from whet.model.architecture import Architecture
from whet.model.block import Block
from whet.model.config import Config
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

Facts = dict[str, dict[str, Quantity]]
HOW = "mean KL from the model before, over the calibration tokens"
ROWS = 64  # tokens whose predictions are held at a time
MIXED = (
    "its layers are not all alike, so which ones go decides what config.json says: "
    "name them with `layers`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth(ModelPass):
    """Drop whole layers: those named, or those whose absence changes least.

    By `kl`, one layer after the other goes, each time the one without which the model's
    predictions stay nearest; by `influence`, all at once, those that turn the
    residual stream least: 1 − E cos(in, out).
    Law: a layer that adds nothing has an influence of 0 and goes first.
    """

    name: ClassVar[str] = "depth"

    share: float = field(default=0.0, metadata=says("of the layers to drop [1]"))
    keep: int = field(default=0, metadata=says("layers that stay [1]"))
    layers: tuple[int, ...] = field(default=(), metadata=says("the layers to drop, from 0"))
    by: Literal["kl", "influence"] = field(
        default="kl", metadata=says("how layers are chosen: kl (one by one) or influence (at once)")
    )
    samples: int = field(default=16, metadata=says("calibration windows [1]"))
    length: int = field(default=256, metadata=says("tokens a window [token]"))

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        given = [bool(self.share), bool(self.keep), bool(self.layers)]
        if sum(given) != 1 or len(set(self.layers)) != len(self.layers):
            raise ValueError(
                "give one of `share`, `keep` and `layers`, the last without repetition"
            )
        if not 0 <= self.share < 1 or self.keep < 0:
            raise ValueError("share must be below 1, keep at least 1")

    def left(self, layers: int) -> int:
        """Return how many layers stay."""
        return self.keep or max(1, round(layers * (1 - self.share))) - len(self.layers)

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        arch = find(config).architecture(config)
        beyond = [layer for layer in self.layers if not 0 <= layer < arch.layers]
        if beyond:
            return f"it has layers 0 to {arch.layers - 1}, no layer {beyond[0]}"
        if not 0 < self.left(arch.layers) < arch.layers:
            return f"it has {arch.layers} layers, of which 1 to {arch.layers - 1} can stay"
        if arch.scale_by_depth:
            return "its attention is scaled by the number of the layer"
        return MIXED if not self.layers and len(set(_kinds(arch))) > 1 else None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        arch = family.architecture(config)
        gone = self.layers or tuple(
            range(self.left(arch.layers), arch.layers)
        )  # these are all alike
        kept = [layer for layer in range(arch.layers) if layer not in gone]
        changed = fields.resized(config, family.name, layers=len(kept))
        return changed | _by_layer(config, arch, kept)

    def run(self, task: Task) -> Outcome:
        """Return the model with fewer layers."""
        facts: Facts = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    def _tensors(self, task: Task, facts: Facts) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        gone = self.layers or tuple(self._chosen(task, cutting, facts))
        facts[""] = {"dropped": Quantity(len(gone), "1", f"layers {', '.join(map(str, gone))}")}
        kept = [layer for layer in range(cutting.old.layers) if layer not in gone]
        for number, layer in enumerate(kept):
            yield from cutting.block(number, Piece(layer))

    def _chosen(self, task: Task, cutting: Cutting, facts: Facts) -> Sequence[int]:
        """Return the layers to drop, in the order in which they were chosen."""
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        count = cutting.old.layers - self.left(cutting.old.layers)
        if self.by == "influence":
            found = influences(task, ids, cutting.old)
            for layer, value in enumerate(found):
                how = "1 − mean cosine of what enters and what leaves"
                facts[f"layers.{layer}"] = {"influence": Quantity(value, "1", how)}
            return sorted(range(len(found)), key=lambda layer: found[layer])[:count]
        gone: list[int] = []
        ideal: list[Tensor] = []
        while len(gone) < count:
            costs = _without(task, ids, gone, ideal, len(gone) / count)
            best = min(costs, key=lambda layer: costs[layer])
            gone.append(best)
            facts[f"layers.{best}"] = {"kl": Quantity(costs[best], "nat", HOW)}
        return gone


def _kinds(arch: Architecture) -> list[tuple[int | None, bool, int]]:
    """Return what tells layers apart: the window, whether they have experts, and their width."""
    layers = range(arch.layers)
    return [(arch.windows[i], arch.sparse(i), arch.ffn_of(i)) for i in layers]


def _by_layer(config: Config, arch: Architecture, kept: Sequence[int]) -> dict[str, Any]:
    """Return the settings of a config that go by the number of the layer."""
    found: dict[str, Any] = {}
    windows = [arch.windows[layer] for layer in kept]
    if "layer_types" in config or len(set(arch.windows)) > 1:
        found["layer_types"] = [
            "full_attention" if width is None else "sliding_attention" for width in windows
        ]
    if "max_window_layers" in config:
        first = next((i for i, width in enumerate(windows) if width is not None), len(kept))
        found["max_window_layers"] = first
    if arch.experts is not None and len(arch.experts.layers) < arch.layers:
        found["mlp_only_layers"] = [i for i, old in enumerate(kept) if not arch.sparse(old)]
        found["decoder_sparse_step"] = 1
    if arch.ffns:
        found[uneven.KEY] = [arch.ffns[layer] for layer in kept]
    return found


def influences(task: Task, ids: Tensor, arch: Architecture) -> list[float]:
    """Return 1 − E cos(in, out) of every layer [1]."""
    found: list[float] = []
    for stop in walk(task.source, ids, task.work, budget=task.budget):
        task.heed(stop.layer / arch.layers, f"block {stop.layer + 1}")
        pairs = zip(stop.entering(), stop.leaving(), strict=True)
        total = sum(
            float(torch.cosine_similarity(x.double(), y.double(), dim=-1).sum()) for x, y in pairs
        )
        found.append(1 - total / ids.numel())
    return found


@torch.no_grad()
def _without(
    task: Task, ids: Tensor, gone: Sequence[int], ideal: list[Tensor], done: float
) -> dict[int, float]:
    """Return the KL [nat] that dropping each layer that is left would cost.

    The streams of all candidates go through the blocks side by side, one block in memory; until its
    own layer, a candidate's stream is the common one.
    """
    family = find(task.source.config)
    arch = family.architecture(task.source.config, task.source.names())
    with arithmetic(usual(arch.hidden)):
        common = decoder.embedding(task.source, family, arch)(ids)
        streams: dict[int, Tensor] = {}
        for layer in range(arch.layers):
            task.heed(done, f"without one of {arch.layers - len(gone)} layers: block {layer + 1}")
            if layer in gone:
                continue
            block = decoder.block(task.source, family, arch, layer)
            streams = {drop: _through(block, x) for drop, x in streams.items()}
            streams[layer] = common
            common = _through(block, common)
        head = decoder.head(task.source, family, arch)
        if not ideal:
            ideal.append(common)  # nothing is gone yet
        return {drop: _divergence(head, ideal[0], x) for drop, x in streams.items()}


def _through(block: Block, x: Tensor) -> Tensor:
    """Return what leaves a block, window by window."""
    return torch.cat([block(part) for part in x.split(4)])


def _divergence(
    head: decoder.Head,
    ideal: Float[Tensor, "samples time hidden"],
    x: Float[Tensor, "samples time hidden"],
) -> float:
    """Return the mean KL of the predictions from the ideal ones [nat]."""
    total = 0.0
    pairs = zip(ideal.flatten(0, 1).split(ROWS), x.flatten(0, 1).split(ROWS), strict=True)
    for right, ours in pairs:
        p, q = head(right).double().log_softmax(-1), head(ours).double().log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    return total / (ideal.shape[0] * ideal.shape[1])
