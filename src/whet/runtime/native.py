"""The native executor: a folder in memory, its weights in layouts of this machine's kernels.

Torch-free. Sequences keep their keys and values in pages of one pool; several of them, of any
lengths, go forward in one step.
"""

import os
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whet.base.machine import cores, free_memory
from whet.formats.keeping import USUAL, Keeping, coded_by_page, page_bytes
from whet.graph.executors.build import Limits, Machine
from whet.graph.executors.native import Logits as Rows
from whet.graph.executors.native import Native as Program
from whet.graph.executors.native import joined, parts
from whet.graph.executors.weights import Precision
from whet.graph.ir import Attend, Graph, Store, steps
from whet.graph.lower import lower, parts_of
from whet.kernels.native import missing, native
from whet.model.architecture import Architecture
from whet.model.family import find
from whet.runtime.executor import Ids, Inputs, Logits
from whet.runtime.layouts import key_of, prepared
from whet.runtime.saved import Saved
from whet.runtime.sequences import Sequence, Sequences
from whet.store.contents import Contents
from whet.store.folder import Folder

STEP = 512  # tokens that are computed at once
WANTED = 32 << 20  # logits that are computed at once [byte]
SEQUENCES = 16
SHARE = 0.6  # of the free memory that keys and values may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a folder is run.

    precision  what activations of integer weights are rounded to, where the folder does not say:
               int16 or int8 with a scale for some 32 channels of a token, or bf16
    cache      what keys and values are kept in; None: what the folder says, or bf16
    threads    0: as many as this process may use
    """

    precision: Precision = "int16"
    cache: Keeping | None = None
    threads: int = 0
    tokens: int = STEP
    sequences: int = SEQUENCES
    tier: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Tokens that follow those of a sequence; logits are wanted after the last `wanted`."""

    tokens: Ids
    sequence: Sequence
    wanted: int = 1


class Native:
    """A folder in memory: `whet.runtime.executor.Executor`, and several sequences at once."""

    name = "native"

    def __init__(
        self,
        arch: Architecture,
        program: Program,
        notes: Mapping[str, str],
        longest: int,
        density: float = 1.0,
    ) -> None:
        self.arch, self.program, self.notes, self.longest = arch, program, notes, longest
        self.density = density
        pool, limits = program.pool, program.limits
        self.sequences = Sequences(
            limits.pages, limits.sequences, native().PAGE, pool.copy_page, pool.copy_slot
        )

    @property
    def vocab(self) -> int:
        """Number of logits."""
        return self.arch.vocab

    @property
    def context(self) -> int:
        """The longest sequence [token]."""
        return self.arch.context

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self.program.machine.threads

    def new_cache(self) -> Sequence:
        """Return the memory of one sequence, empty."""
        return self.sequences.new()

    def forked(self, cache: Sequence) -> Sequence:
        """Return a sequence that begins as another does, and shares its full pages."""
        return self.sequences.forked(cache)

    @property
    def remembers(self) -> str | None:
        """Why a sequence cannot be shortened: pages that are coded as a whole, positions turned anew."""
        kept = self.program.machine.cache
        if coded_by_page(kept):
            return f"keys and values in {kept} are coded page by page"
        if self.program.bound is not None:
            return "its positions are turned anew beyond some length"
        return None

    def forget(self, cache: Sequence, length: int) -> None:
        """Keep the first `length` tokens of a sequence alone."""
        if length < cache.length:
            self.sequences.shorten(cache, length)

    def step(self, tokens: Ids, cache: Sequence, wanted: int = 1) -> Logits:
        """Return the logits after the last `wanted` of the tokens."""
        return self.batch([Piece(tokens, cache, wanted)])[0]

    def batch(self, pieces: Many[Piece]) -> list[Logits]:
        """Return the logits of each piece; the pieces go forward together, of any lengths.

        Law: a piece's logits do not depend on the others, bit for bit.
        """
        if self.program.stretched and len(pieces) > 1:
            return [self.batch([piece])[0] for piece in pieces]
        due = [self._due(piece) for piece in pieces]
        ends = [piece.sequence.length + len(piece.tokens) for piece in due]
        for piece, end in zip(due, ends, strict=True):
            self.sequences.reserve(piece.sequence, end)
        found: list[list[Rows]] = [[] for _ in due]
        for run in _runs(due, self.program.limits.tokens, self.program.limits.sequences):
            self._run(run, due, max(ends), found)
        return [rows[0] if len(rows) == 1 else np.concatenate(rows) for rows in found]

    def _due(self, piece: Piece) -> Piece:
        """Return what to compute: these tokens, or on crossing the bound all from the start."""
        bound, sequence = self.program.bound, piece.sequence
        if bound is None or sequence.length > bound:
            return piece
        sequence.tokens += piece.tokens.tolist()
        if len(sequence.tokens) <= bound or sequence.length == 0:
            return piece
        known = np.array(sequence.tokens, np.int64)
        self.sequences.emptied(sequence)
        return Piece(known, sequence, piece.wanted)

    def _run(
        self, run: "list[_Span]", due: Many[Piece], length: int, found: list[list[Rows]]
    ) -> None:
        """Compute one step, and put each piece's logits with those it has."""
        tokens = np.concatenate([due[s.piece].tokens[s.start : s.stop] for s in run])
        told: list[tuple[int, int, np.ndarray, int]] = []
        wanted: list[int] = []
        row = 0
        for span in run:
            piece, count = due[span.piece], span.stop - span.start
            told.append((count, piece.sequence.length, piece.sequence.pages, piece.sequence.slot))
            first = max(span.start, len(piece.tokens) - piece.wanted) - span.start
            wanted += range(row + first, row + count)
            row += count
        ids, rows = tokens.astype(np.int32), np.array(wanted, np.int32)
        logits = self.program.step(ids, told, rows, length)
        done = 0
        for span in run:
            piece = due[span.piece]
            piece.sequence.length += span.stop - span.start
            first = max(span.start, len(piece.tokens) - piece.wanted)
            if first < span.stop:
                found[span.piece].append(logits[done : done + span.stop - first])
                done += span.stop - first


@dataclass(frozen=True, slots=True)
class _Span:
    """Tokens `start` to `stop` of a piece."""

    piece: int
    start: int
    stop: int


def _runs(pieces: Many[Piece], tokens: int, sequences: int) -> Iterator[list[_Span]]:
    """Yield steps of at most so many tokens and sequences, a piece in each at most once."""
    run: list[_Span] = []
    room = tokens
    for number, piece in enumerate(pieces):
        start = 0
        while start < len(piece.tokens):
            stop = min(len(piece.tokens), start + room)
            run.append(_Span(number, start, stop))
            room -= stop - start
            start = stop
            if room == 0 or len(run) == sequences:
                yield run
                run, room = [], tokens
    if run:
        yield run


def threads() -> int:
    """Return how many threads compute: `WHET_THREADS`, else as many as this process may use."""
    given = os.environ.get("WHET_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else cores()


def refusals(folder: Folder, settings: Settings = Settings()) -> Many[str]:
    """Return why the kernels of this machine cannot run a folder; nothing where they can."""
    lacking = missing()
    if lacking is not None:
        return (lacking,)
    saved, graph = _lowered(folder, settings)
    found = (saved.refusal(part) for part in parts(joined(graph)))
    return tuple(reason for reason in found if reason is not None)


def load(folder: Folder, settings: Settings = Settings()) -> Native:
    """Return a folder in memory."""
    saved, graph = _lowered(folder, settings)
    family = find(folder.config)
    arch = family.architecture(folder.config, saved.contents.names())
    extension = Path(str(native().__file__))
    key = key_of(folder, saved.tier, settings.precision, extension)
    wanted = saved.wanted(parts(joined(graph)))
    layouts = prepared(folder.path, key, wanted)
    saved.take(layouts)
    read = sum(each.nbytes for each in layouts.layouts.values())
    cache = settings.cache or arch.keeping or USUAL
    machine = Machine(threads=settings.threads or threads(), tier=saved.tier, cache=cache)
    limits = _limits(arch, graph, settings, cache)
    program = Program(graph, saved, limits, machine)
    notes = {
        "kernels": saved.tier,
        "activations": settings.precision,
        "cache": cache,
        "layouts": layouts.note,
    }
    return Native(arch, program, notes, limits.longest, read / sum(one.nbytes for one in wanted))


def opened(folder: Folder, cache: Keeping | None, inputs: Inputs) -> Native:
    """Return a folder in memory, with keys and values kept as said; None: as the folder says."""
    return load(folder, Settings(cache=cache, precision=inputs))


def _lowered(folder: Folder, settings: Settings) -> tuple[Saved, Graph]:
    contents = Contents(folder, mapped=True)
    tier = settings.tier or native().chosen_tier()
    family = find(contents.config)
    arch = family.architecture(contents.config, contents.names())
    graph = lower(family, arch, parts_of(contents))
    return Saved(contents, tier, settings.precision), graph


def _limits(arch: Architecture, graph: Graph, settings: Settings, cache: Keeping) -> Limits:
    page = native().PAGE
    each = -(-arch.context // page)
    room = int(SHARE * free_memory()) // _page_bytes(graph, cache)
    return Limits(
        tokens=settings.tokens,
        wanted=max(1, min(settings.tokens, WANTED // (4 * arch.vocab))),
        sequences=settings.sequences,
        longest=arch.context,
        pages=max(1, min(settings.sequences * (each + 1), max(room, 1))),
    )


def _page_bytes(graph: Graph, cache: Keeping) -> int:
    """Return what a page takes in all layers [byte]."""
    every = [step for op in graph.ops for step in steps(op)]
    stores = [op for op in every if isinstance(op, Store)]
    assert any(isinstance(op, Attend) for op in every)
    return sum(op.heads * page_bytes(cache, op.dim) for op in stores)
