"""Carry out the steps of a recipe on one part of a model: observe, rewrite, replace, record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Protocol, cast, runtime_checkable

import torch

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.seed import stream_seed
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.spec import Float, Format
from whet.formats.weight import written
from whet.kernels.arithmetic import arithmetic
from whet.kernels.threads import concurrent
from whet.methods.solve.threads import SMALL
from whet.model.block import Block
from whet.model.fold import fold
from whet.model.linear import Linear
from whet.model.site import Site
from whet.passes.block_pass import BlockPass, Change, Observe
from whet.passes.linear_pass import LinearPass, Rewrite
from whet.recipe.plan import Plan
from whet.recipe.recipe import Step

Kinds = tuple[type[Statistic], ...]


@runtime_checkable
class Part(Protocol):
    """What is rewritten at a time: the embedding, a block or the head."""

    @property
    def linears(self) -> Mapping[str, Linear]:
        """Return the linears by role."""
        ...

    @property
    def sites(self) -> Sequence[Site]:
        """Return what they are called in the checkpoint."""
        ...


Look = Callable[[Part, Part, str, Kinds], Stats]  # (part, reference, tap, kinds) -> statistics
Touched = Callable[[Part, str | None], None]  # linears of a tap have changed, or anything (None)
Flows = Callable[[Block, Block], AbstractContextManager[Observe]]  # (block, reference) -> a `Flow`


def _unheeded(part: Part, tap: str | None) -> None:
    """Heed no change: what was looked at is kept nowhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Rewriter:
    """The steps of a plan, applied to one part after the other."""

    plan: Plan
    look: Look
    touched: Touched = _unheeded
    flows: Flows | None = None

    def rewrite(self, part: Part, reference: Part) -> Iterator[Record]:
        """Change `part` in place, step by step; yield what was done.

        `reference` is the same part uncompressed. It is only ever rescaled without changing what it
        computes, so that both stay comparable channel by channel.
        """
        stored = {role: linear.weight.format for role, linear in part.linears.items()}
        numbered = enumerate(self.plan.recipe.steps)
        for whole, group in groupby(numbered, key=lambda step: isinstance(step[1].use, BlockPass)):
            steps = list(group)
            if whole:
                for index, step in steps:
                    yield from self._over_block(index, step, part, reference)
            else:
                yield from self._linears([index for index, _ in steps], part, reference)
        _settle(part, stored)

    def _over_block(self, index: int, step: Step, part: Part, reference: Part) -> Iterator[Record]:
        """Carry out a pass over a whole block, if the part is one that it selects.

        Of the embedding and the head it is asked only what their inputs are to be.
        """
        chosen = [site for site in part.sites if index in self.plan.steps[site.module]]
        if not chosen or not isinstance(step.use, BlockPass):
            return
        if chosen[0].layer is None:
            for site in chosen:
                part.linears[site.role].activation = step.use.everywhere
            return
        block, ideal = cast("Block", part), cast("Block", reference)
        yield from self._equalised(step.use, block, ideal, chosen)

    def _linears(self, steps: list[int], part: Part, reference: Part) -> Iterator[Record]:
        """Rewrite linears tap by tap in the order of execution, each on what earlier ones left.

        Steps that stand beside each other are carried out together, so that the order does not
        depend on which of them selects a linear; only on one linear they follow each other.
        """
        taps: tuple[str, ...] = getattr(part, "taps", ())
        place = {tap: i for i, tap in enumerate(taps)}
        mine = {s.module: [i for i in steps if i in self.plan.steps[s.module]] for s in part.sites}
        ordered = sorted(part.sites, key=lambda site: place.get(site.tap, 0))
        for tap, group in groupby(ordered, key=lambda site: site.tap):
            sites = list(group)
            for turn in range(max(len(mine[site.module]) for site in sites)):
                due = [(s, mine[s.module][turn]) for s in sites if turn < len(mine[s.module])]
                yield from self._at_tap(tap, due, part, reference)

    def _at_tap(
        self, tap: str, due: list[tuple[Site, int]], part: Part, reference: Part
    ) -> Iterator[Record]:
        """Rewrite linears that read the same, each by its step."""
        kinds = tuple({kind: None for s, index in due for kind in self._pass(index, s).needs})
        stats = self.look(part, reference, tap, kinds) if kinds else Stats((), due[0][0].shape[1])
        jobs = [partial(self._rewritten, part, stats, site, index) for site, index in due]
        with arithmetic(self.plan.recipe.precision):
            small = all(site.shape[0] * site.shape[1] <= SMALL for site, _ in due)
            every = concurrent(jobs) if small and len(jobs) > 1 else [job() for job in jobs]
        for (site, index), done in zip(due, every, strict=True):
            part.linears[site.role].replace(done.weight)
            yield _record(self._pass(index, site).name, site, done, stats)
        self.touched(part, tap)

    def _rewritten(self, part: Part, stats: Stats, site: Site, index: int) -> Rewrite:
        """Return what the pass of a step makes of a linear, with all that it says of it."""
        use, linear = self._pass(index, site), part.linears[site.role]
        seed = stream_seed(self.plan.recipe.seed, f"{index}/{site.module}")
        done = use.rewrite(linear.weight.dense(), stats, site.role, seed)
        return replace(done, facts=dict(done.facts))

    def _pass(self, index: int, site: Site) -> LinearPass:
        return self.plan.passes[index, site.module]

    def _equalised(
        self, use: BlockPass, block: Block, reference: Block, chosen: list[Site]
    ) -> Iterator[Record]:
        """Ask a pass over a whole block what to do, do it, and yield what it says of it."""
        modules = {site.role: site.module for site in chosen}
        change = self._change(use, block, reference, tuple(modules))
        _fold(change, block, reference)
        for role, weight in change.weights.items():
            block.linears[role].replace(weight)
        for role, (activation, scale) in change.activations.items():
            block.linears[role].activation = activation
            block.linears[role].input_scale = scale
        self.touched(block, None)
        for place in sorted({*change.facts, *change.fallbacks}):
            yield Record(
                use.name,
                modules.get(place, f"layers.{block.layer}.{place}"),
                dict(change.facts.get(place, {})),
                change.fallbacks.get(place),
                {"role": place, "layer": str(block.layer)},
            )

    def _change(
        self, use: BlockPass, block: Block, reference: Block, roles: tuple[str, ...]
    ) -> Change:
        """Return what a pass over a block asks for."""
        if use.follows:
            assert self.flows is not None, "the plan knows which passes follow samples"
            with arithmetic(self.plan.recipe.precision), self.flows(block, reference) as flow:
                return use.rewrite(block, roles, flow)
        return use.rewrite(block, roles, lambda tap, kinds: self.look(block, reference, tap, kinds))


def _record(step: str, site: Site, done: Rewrite, stats: Stats) -> Record:
    """Return the record of a rewritten site."""
    weight = done.weight
    bits = weight.format.bits(weight.shape) / (weight.shape[0] * weight.shape[1])
    facts = {**done.facts, "bits_per_weight": Quantity(bits, "bit", "stored planes ÷ weights")}
    if stats.tokens:
        facts["tokens"] = Quantity(stats.tokens, "1", "calibration tokens seen at this input")
    if stats.dropped:
        facts["dropped"] = Quantity(len(stats.dropped), "1", "samples left out as not finite")
    layer = "" if site.layer is None else str(site.layer)
    notes = {"role": site.role, "layer": layer, "format": str(weight.format)}
    return Record(step, site.module, facts, done.fallback, notes)


def _fold(change: Change, block: Block, reference: Block) -> None:
    """Rescale channels in both blocks alike."""
    for tap, scale in change.folds.items():
        used, again = fold(block, tap, scale), fold(reference, tap, scale)
        assert torch.equal(used, again), "a fold depends on the producer's stored type alone"


def _settle(part: Part, stored: Mapping[str, Format]) -> None:
    """Store rescaled but unquantized weights in the type that the checkpoint had them in."""
    for role, linear in part.linears.items():
        format_ = linear.weight.format
        if isinstance(format_, Float) and format_ != stored[role]:
            linear.replace(written(linear.weight.dense(), stored[role]))
