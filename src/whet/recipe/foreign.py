"""Carry out a plan on a model that runs by the code of transformers: linear by linear, in memory.

There are no blocks to stream, so the model is held whole; its linears are compressed a group at a
time (those of one numbered layer), each group on what the groups before it left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from whet.base.errors import StoppedError
from whet.calibrate.statistics import Stats
from whet.model.foreign import Foreign
from whet.model.linear import Linear
from whet.model.site import Site
from whet.recipe.parts import PROBE, Parts, probed
from whet.recipe.plan import Plan
from whet.recipe.progress import Progress, commit, finished
from whet.recipe.rewrite import Kinds, Rewriter
from whet.store.array import stored
from whet.store.dialects import reader_of
from whet.store.dialects.dialect import Held
from whet.store.dtypes import tensor_of, weight_of
from whet.store.shard import Shard
from whet.store.writer import write_shard

BATCH = 8  # windows at once


@dataclass(frozen=True, slots=True)
class Group:
    """Some linears that are rewritten together."""

    sites: tuple[Site, ...]
    linears: dict[str, Linear]


@dataclass(frozen=True, slots=True, eq=False)
class ForeignExecution:
    """A plan under way in a working folder; its parts are the groups of linears."""

    plan: Plan
    ids: Tensor  # calibration tokens, int64 [samples time]
    work: Path
    progress: Progress
    stopped: Callable[[], bool]

    @property
    def parts(self) -> Parts:
        """Return what is finished."""
        return Parts(self.work / "parts")

    @property
    def count(self) -> int:
        """Return how many parts there are."""
        return len(self._groups())

    @torch.inference_mode()
    def run(self) -> None:
        """Do every part that is not done."""
        model, groups, done = Foreign(self.plan.folder.path), self._groups(), finished(self.work)
        self.progress.start(len(groups), "compress")
        for path in self.parts.shards(done):
            self._restore(model, path)
        for part, sites in enumerate(groups):
            self.progress.advance(part, f"group {part + 1} of {len(groups)}")
            if part < done:
                continue
            if self.stopped():
                raise StoppedError(
                    f"stopped; kept in {self.work}", "Run the same command to go on."
                )
            self._rewrite(model, part, sites)
            commit(self.work, part + 1)
        self._probe(model)
        self.progress.finish()

    def _groups(self) -> list[tuple[Site, ...]]:
        """Return the linears to be compressed, those of one layer together."""
        chosen = [p.site for p in self.plan.placed if p.scheme is not None]
        return [tuple(sites) for _, sites in groupby(chosen, key=_layer_of)]

    def _rewrite(self, model: Foreign, part: int, sites: tuple[Site, ...]) -> None:
        steps = self.plan.recipe.steps
        kinds = tuple(
            {k: None for s in sites for i in self.plan.steps[s.module] for k in steps[i].needs}
        )
        seen = (
            model.observe(self._inputs(model), [s.module for s in sites], _stats(kinds))
            if kinds
            else {}
        )

        def look(*asked: object) -> Stats:
            return seen[str(asked[2]).removesuffix(".in")]  # (part, reference, tap, kinds)

        group = Group(sites, {s.role: Linear(model.weight(s.module)) for s in sites})
        records = list(Rewriter(self.plan, look).rewrite(group, group))
        tensors: dict[str, Tensor] = {}
        for site in sites:
            weight = group.linears[site.role].weight
            model.replace(site.module, weight.dense())
            tensors |= self.plan.choice.dialect.tensors(
                site, weight, self.plan.schemes[site.module]
            )
        self.parts.save(part, tensors, records)

    def _inputs(self, model: Foreign) -> Iterator[dict[str, Tensor]]:
        return (model.inputs(some) for some in self.ids.split(BATCH))

    def _restore(self, model: Foreign, path: Path) -> None:
        """Give the model the weights of a part that an earlier run has finished."""
        shard = Shard(path)
        held = Held(shard.tensors, partial(stored, shard), str(path))
        plan = self.plan.settled(self.parts.records(finished(self.work)))
        reader = reader_of(plan.choice.config(plan.schemes, plan.skipped), held)
        for placed in plan.placed:
            site = placed.site
            if any(name.startswith(f"{site.module}.weight") for name in shard.tensors):
                weight = reader.weight(site)
                if weight is None:
                    model.replace(site.module, tensor_of(stored(shard, site.tensor)).float())
                else:
                    model.replace(site.module, weight_of(weight).dense())

    def _probe(self, model: Foreign) -> None:
        ids = probed(self.ids)
        write_shard(self.work / PROBE, {"ids": ids, "logits": model.outputs(ids)})


def _layer_of(site: Site) -> str:
    """Return a site's name up to its first number: what stands in the same numbered layer."""
    words = site.module.split(".")
    number = next((i for i, word in enumerate(words) if word.isdigit()), len(words))
    return ".".join(words[: number + 1])


def _stats(kinds: Kinds) -> Callable[[int], Stats]:
    return lambda channels: Stats(kinds, channels)
