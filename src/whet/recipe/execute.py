"""Carry out a plan: one walk over the blocks, one block in memory, resumable after each part.

embedding ─▶ hidden states ─▶ for each block: look, rewrite, store, advance ─▶ head
└─▶ records
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from whet.base.allocator import retain, trim
from whet.base.errors import StoppedError
from whet.base.machine import peak_rss
from whet.base.quantity import Quantity
from whet.base.record import Record, append_records
from whet.calibrate.hidden_states import MemoryBudget
from whet.calibrate.statistics import Stats
from whet.model import decoder
from whet.model.architecture import Architecture
from whet.model.family import Family, find
from whet.recipe.allot import allotted
from whet.recipe.parts import PROBE, Parts, probed
from whet.recipe.plan import Plan
from whet.recipe.progress import Progress, commit, finished
from whet.recipe.rewrite import Part, Rewriter
from whet.recipe.streams import Streams, entered, keep_only, reopened
from whet.store.checkpoint import Checkpoint
from whet.store.writer import write_shard

SAVE_INTERVAL_S = 60.0  # between saves of hidden states that are in memory: what a kill costs
RETAINED = 128 << 20  # freed memory that stays with the process [byte],
RETAINED_STATES = (
    1 << 30
)  # and, where hidden states may be in memory, as much more: blocks take it again
HIDDEN_STATES = "hidden-states"  # the folder of those that are saved, or too large for memory
RUN = "run.jsonl"  # what concerns this run and not its result: times, memory, the command


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """A plan under way in a working folder; its parts are the embedding, the blocks and the head."""

    plan: Plan
    source: Checkpoint
    ids: Tensor  # calibration tokens, int64 [samples time]
    work: Path
    progress: Progress
    stopped: Callable[[], bool]
    budget: MemoryBudget = field(default_factory=MemoryBudget)  # of hidden states

    @property
    def parts(self) -> Parts:
        """Return what is finished."""
        return Parts(self.work / "parts")

    @property
    def count(self) -> int:
        """Return how many parts there are."""
        return self.plan.anatomy.layers + 2

    @property
    def _kind(self) -> tuple[Family, Architecture]:
        family = find(self.source.config)
        return family, family.architecture(self.source.config, self.source.names())

    @torch.inference_mode()
    def run(self) -> None:
        """Do every part that is not done.

        Law: a kill costs at most the part under way and those since hidden states were last saved.
        """
        retain(RETAINED + min(self.budget.limit, RETAINED_STATES))
        plan = allotted(self.plan, self.source, self.ids, self.work, self.stopped)
        replace(self, plan=plan)._run()

    def _run(self) -> None:
        done = finished(self.work)
        self.progress.start(self.count, "compress")
        streams = self._reopened(done) if 0 < done < self.count else None
        saved = time.perf_counter()
        for part in range(done, self.count):
            self.progress.advance(part, self._name(part))
            if self.stopped():
                self._stop(part, streams)
            streams = self._do(part, streams)
            late = time.perf_counter() - saved > SAVE_INTERVAL_S
            if late or not streams.in_memory or part == self.count - 1:
                self._save(part, streams)
                saved = time.perf_counter()
        self.progress.finish()

    def _do(self, part: int, streams: Streams | None) -> Streams:
        began = time.perf_counter()
        if streams is None:
            onward = self.enter()
        elif part < self.count - 1:
            onward = self.through(part, streams)
        else:
            onward = self.leave(streams)
        self._time(self._name(part), began)
        if streams is not None:
            streams.release()
        return onward

    def _save(self, part: int, streams: Streams) -> None:
        """Make a part one that a later run need not do again."""
        if part < self.count - 1:
            streams.save()
        commit(self.work, part + 1)
        keep_only(self._hidden_states, part)

    def _stop(self, part: int, streams: Streams | None) -> NoReturn:
        """Keep what is done, and end the run."""
        if streams is not None:
            self._save(part - 1, streams)
        raise StoppedError(
            f"stopped before {self._name(part)}; what is finished is kept in {self.work}",
            "Run the same command to go on.",
        )

    def enter(self) -> Streams:
        """Embed the tokens, with the compressed embedding and with the original one."""
        original, working = self._embedding(), self._embedding()
        records = list(Rewriter(self.plan, _nothing).rewrite(working, original))
        streams = entered(
            self.ids,
            working,
            original,
            self.plan.anatomy.hidden,
            self._hidden_states,
            self.plan.recipe.precision,
            self.budget,
            followed=self.plan.compares,
        )
        self.parts.save(0, self._stored(working), records)
        return streams

    def through(self, part: int, streams: Streams) -> Streams:
        """Compress one block and pass the hidden states through it."""
        layer = part - 1
        block, reference = self._block(layer), self._block(layer)
        records = list(self._rewriter(streams).rewrite(block, reference))
        onward = streams.advanced(block, reference, self._hidden_states, part)
        lost, over = onward.drift()
        how = f"‖x−x̃‖² ÷ ‖x̃‖² of what leaves the block, {over}"
        records.append(Record("block", f"layers.{layer}", {"drift": Quantity(lost, "1", how)}))
        self.parts.save(part, dict(block.extras()) | self._stored(block), records)
        return onward

    def leave(self, streams: Streams) -> Streams:
        """Compress the head, and keep the logits of a few tokens for the reload check."""
        trim()  # a head is larger than the holes that blocks leave
        original, working = self._heads()
        records = list(self._rewriter(streams).rewrite(working, original))
        logits = working(streams.probe.read(0, streams.probe.samples))
        write_shard(self.work / PROBE, {"ids": probed(self.ids), "logits": logits})
        self.parts.save(self.count - 1, self._stored(working), records)
        return streams

    def _rewriter(self, streams: Streams) -> Rewriter:
        return Rewriter(self.plan, streams.look, streams.touched, streams.flows)

    def _heads(self) -> tuple[decoder.Head, decoder.Head]:
        """Return the head twice; a tied one multiplies by the compressed embedding."""
        family, arch = self._kind
        if not arch.tied:
            return decoder.head(self.source, family, arch), decoder.head(self.source, family, arch)
        embedding, other = self._embedding(), self._embedding()
        list(Rewriter(self.plan, _nothing).rewrite(embedding, embedding))
        other.linear.replace(embedding.linear.weight)
        other.linear.activation = embedding.linear.activation
        other.linear.input_scale = embedding.linear.input_scale
        heads = (decoder.head(self.source, family, arch, tied) for tied in (other, embedding))
        return next(heads), next(heads)

    def _embedding(self) -> decoder.Embedding:
        return decoder.embedding(self.source, *self._kind)

    def _block(self, layer: int) -> decoder.Block:
        return decoder.block(self.source, *self._kind, layer)

    def _stored(self, part: Part) -> dict[str, Tensor]:
        """Return the linears of a finished part as the chosen dialect names their tensors."""
        tensors: dict[str, Tensor] = {}
        for site in part.sites:
            if site.tied is None:
                linear, scheme = part.linears[site.role], self.plan.schemes.get(site.module)
                write = self.plan.choice.dialect.tensors
                tensors |= write(site, linear.weight, scheme, linear.input_scale)
        return tensors

    def _reopened(self, done: int) -> Streams:
        last = min(done, self.count - 1) - 1
        precision = self.plan.recipe.precision
        return reopened(
            self._hidden_states, last, precision, self.budget, followed=self.plan.compares
        )

    def _name(self, part: int) -> str:
        if part in {0, self.count - 1}:
            return "head" if part else "embedding"
        return f"block {part} of {self.count - 2}"

    @property
    def _hidden_states(self) -> Path:
        return self.work / HIDDEN_STATES

    def _time(self, site: str, began: float) -> None:
        facts = {
            "seconds": Quantity(time.perf_counter() - began, "s", "wall time"),
            "peak_rss": Quantity(peak_rss(), "byte", "largest resident size so far"),
        }
        append_records(self.work / RUN, [Record("time", site, facts)])


def _nothing(*asked: object) -> Stats:
    """An embedding reads tokens, which have no statistics; the plan has refused passes that ask."""
    raise AssertionError(asked)
