"""How long the engine takes for one linear of some format and shape. Torch-free.

The engine's own operators are run on copies of drawn matrices, one after the other, over as many
bytes as the whole model has: what caches hold there they hold here.
"""

import contextlib
import mmap
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.formats.activation import Activation
from whet.formats.bits import packed
from whet.formats.pattern import Within
from whet.formats.spec import Coded, Float, Format, Plane, Shape, Sparse
from whet.graph import ir
from whet.graph.executors.build import Build, Limits, Machine
from whet.graph.executors.native import input_key
from whet.graph.executors.weights import (
    Matrix,
    Precision,
    Way,
    matrices_of,
    planes,
    refusal,
    run_as,
    way,
    way_of,
)
from whet.graph.ir import TOKENS, Graph, Op, Value
from whet.graph.rewrites.quantize_once import quantize_once
from whet.graph.weights import Part, whole
from whet.kernels.described import described
from whet.kernels.native import native
from whet.measure.calm import Calm, Look
from whet.model.site import Site
from whet.store.array import KINDS, Array, Planar
from whet.store.scheme import Scheme

Layout = NDArray[np.uint8]

COUNTED = frozenset({"prepare", "round", "linear"})  # the engine's names for a linear's operators
LINE = 64  # layouts begin at multiples of it [byte]
COPIES = 512  # at most
WORK = 4e9  # operations of one round, about
LEAST, MOST, ENOUGH = 3, 99, 0.05  # rounds: at least, at most, and a time to stop at [s]
UNDISTURBED = 0.25  # quantile of an operator's times: other work on the machine only slows it down
PERIOD = 1 << 20  # of drawn numbers
CONSTANTS = {"scale": 0.004, "global": 1.0, "base": 1.5}
BYTES = {"U8": 120, "F8_E4M3": 0x38}  # scales about one
DRAWN = 64  # rows whose masks differ
DIM = 8  # of the head that a program must have


@dataclass(frozen=True, slots=True)
class Product:
    """What the engine multiplies an input by at once: matrices of one format, side by side.

    `activation` is the number format of the input, where the engine is not to choose it.
    """

    format: Format
    shapes: tuple[Shape, ...]
    activation: Activation | None = None

    @property
    def operations(self) -> int:
        """Multiplications and additions for one row of input."""
        return 2 * sum(rows * cols for rows, cols in self.shapes)

    def part(self, number: int, copy: int = 0) -> Part:
        """Return one of the matrices as a weight of a model."""
        shape = self.shapes[number]
        site = Site("mlp.up", f"{copy}.{number}", shape, "ffn", "hidden", "mlp.in")
        return whole(site, Scheme(self.format, self.activation))


@dataclass(frozen=True, slots=True)
class Time:
    """How long a product takes [s], and the size of its layouts [byte]."""

    seconds: float
    nbytes: int


class Stopwatch:
    """Times products on this machine, by `threads`, as parts of a model of `model_bytes`.

    `calm` tells which rounds are to be timed again.
    """

    def __init__(
        self,
        threads: int,
        model_bytes: int,
        tier: str = "",
        precision: Precision = "int16",
        calm: Calm | None = None,
    ) -> None:
        self.threads, self.model_bytes, self.calm = threads, model_bytes, calm or Calm()
        self.tier = tier or native().chosen_tier()
        self.precision: Precision = precision
        self._memory = _mapped(max(model_bytes, LINE))

    def refuses(self, product: Product) -> str | None:
        """Return why no kernel multiplies by a product's matrices, or None."""
        for number, shape in enumerate(product.shapes):
            reason = product.format.refuses(shape)
            reason = reason or refusal(product.part(number), self.tier, self.precision)
            if reason:
                return reason
        return None

    def time(self, product: Product, rows: int) -> Time:
        """Return the time of a product with `rows` of input: the usual one of several rounds."""
        first = _layouts(product, self.tier, self.precision)
        nbytes = sum(layout.nbytes for layout in first.values())
        count = max(1, min(COPIES, int(WORK / (rows * product.operations))))
        weights = Copies(self, product, first, count)
        run = _Run(weights, rows)
        run.once()
        found = self.calm.rounds(run.once, LEAST, MOST, ENOUGH)
        usual = np.quantile(np.array(found), UNDISTURBED, axis=0)
        return Time(float(usual.sum()) / weights.count, nbytes)

    def copied(self, layouts: Sequence[Layout], most: int) -> Iterator[list[Layout]]:
        """Yield copies of layouts that lie behind each other, as many as memory holds, at least one."""
        size = sum(map(_aligned, (layout.nbytes for layout in layouts)))
        if size > len(self._memory):
            self._memory = _mapped(size)
        room = np.frombuffer(self._memory, np.uint8)
        for start in range(0, min(most, len(room) // size) * size, size):
            place, found = start, list[Layout]()
            for layout in layouts:
                found.append(room[place : place + layout.nbytes])
                found[-1][:] = layout
                place += _aligned(layout.nbytes)
            yield found


def repeated(product: Product, threads: int, count: int) -> Look:
    """Return what runs a product so many times, by matrices that caches hold, and says how long [s]."""
    watch = Stopwatch(threads, count * product.operations)
    copies = Copies(watch, product, _layouts(product, watch.tier, watch.precision), count)
    run = _Run(copies, 1)
    return lambda: sum(run.once())


class Copies:
    """Copies of a product's matrices (`whet.graph.executors.weights.Weights`)."""

    def __init__(
        self,
        watch: Stopwatch,
        product: Product,
        first: Mapping[tuple[int, int], Layout],
        most: int,
    ) -> None:
        self.watch, self.product = watch, product
        self._opened: dict[tuple[int, int, int], Matrix] = {}
        self.count = 0
        for copy in watch.copied(list(first.values()), most):
            for key, layout in zip(first, copy, strict=True):
                self._opened[self.count, *key] = native().Matrix(layout, watch.tier)
            self.count += 1

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Refuse: there are linears alone."""
        raise KeyError(name)

    def positions(self, name: str) -> dict[str, Any]:
        """Refuse: there are linears alone."""
        raise KeyError(name)

    def table(self, part: Part) -> dict[str, Any]:
        """Return a table of one row, the input of all."""
        plain = np.random.default_rng(0).standard_normal((1, part.cols), np.float32)
        return {"rows": 1, "width": part.cols, "number": "F32", "plain": plain}

    def way(self, part: Part) -> Way:
        """Return how the input is multiplied."""
        return way(part, self.watch.precision)

    def matrices(self, part: Part) -> Sequence[Matrix]:
        """Return the matrices that read the input."""
        return [m for side, m in self._of(part) if side != "left"]

    def second(self, part: Part) -> Matrix | None:
        """Return the matrix that reads what the last of `matrices` returns, of a product."""
        return next((m for side, m in self._of(part) if side == "left"), None)

    def _of(self, part: Part) -> Iterator[tuple[str, Matrix]]:
        copy, number = map(int, part.site.module.split("."))
        for place, (term, _) in enumerate(matrices_of(part)):
            yield term.side, self._opened[copy, number, place]


class _Run:
    """A program that multiplies rows by all copies."""

    def __init__(self, weights: Copies, rows: int) -> None:
        limits = Limits(tokens=rows, wanted=1, sequences=1, longest=rows, pages=rows + 2)
        machine = Machine(threads=weights.watch.threads, tier=weights.watch.tier)
        build = Build(_graph(weights), weights, limits, machine)
        self.program, self.counted = build.program, [name in COUNTED for name in build.names]
        pages = np.arange(rows // native().PAGE + 1, dtype=np.int32)
        self.given = np.zeros(rows, np.int32), [(rows, 0, pages, 0)], np.array([rows - 1], np.int32)

    def once(self) -> list[float]:
        """Return what each operator of the linears takes in one round [s]."""
        self.program.time(True)  # noqa: FBT003 (of the extension)
        self.program.step(*self.given)
        every = zip(self.program.seconds, self.counted, strict=False)
        return [seconds for seconds, counted in every if counted]


def _mapped(size: int) -> mmap.mmap:
    """Return memory in large pages, where they can be had: a file's lie in memory in large pieces too.

    In small pages matrices that no cache holds were read a seventh slower than from files.
    """
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _graph(weights: Copies) -> Graph:
    """Return a model that looks a row up, attends with one small head, and multiplies by the copies."""
    product = weights.product
    cols = product.shapes[0][1]
    width = sum(rows for rows, _ in product.shapes)
    table = whole(
        Site("embed", "0.0", (1, cols), "vocab", "hidden", "tokens"), Scheme(Float("F32"))
    )
    dim = min(DIM, cols)
    start: tuple[Op, ...] = (
        ir.Embed(TOKENS, "x", table),
        ir.View("x", "head", 0),
        ir.Store("head", "head", "cache", 0, 1, dim),
        ir.Attend("head", "cache", "mixed", 0, 1, 1, dim, 1.0),
    )
    parts = range(len(product.shapes))
    linears = [
        ir.Linear("x", "y", tuple(product.part(number, copy) for number in parts))
        for copy in range(weights.count)
    ]
    values = [Value(TOKENS, 1, kind="ids"), Value("x", cols), Value("head", dim), Value("y", width)]
    values += [
        Value("cache", 0, kind="cache"),
        Value("mixed", dim),
        Value("logits", width, "wanted"),
    ]
    plain = Graph((), {value.name: value for value in values}, outputs=("logits",))
    shared = quantize_once(
        plain.rebuilt((*start, linears[0], ir.Last("y", "logits"))),
        lambda linear: input_key(weights, linear),
    )
    once = [op for op in shared.ops if isinstance(op, ir.Quantize | ir.Linear)]
    again: list[Op] = []
    for linear in linears:  # of one shape and format: what holds for the first holds for all
        again += [*once[:-1], ir.Linear(once[-1].reads[0], "y", linear.parts)]
    return Graph((*start, *again, ir.Last("y", "logits")), shared.values, outputs=("logits",))


def _layouts(product: Product, tier: str, precision: Precision) -> Mapping[tuple[int, int], Layout]:
    """Return drawn matrices laid out: of each of a product's, by number, those that it takes."""
    found: dict[tuple[int, int], Layout] = {}
    made: dict[tuple[Shape, int], Layout] = {}
    for number, shape in enumerate(product.shapes):
        part = product.part(number)
        for place, (term, _) in enumerate(matrices_of(part)):
            if (shape, place) not in made:
                form, chosen = run_as(term, part, tier, precision), way_of(term, part, precision)
                given = (described(form), _drawn(form, term.shape), *term.shape, tier, chosen.mode)
                made[shape, place] = native().pack(*given, chosen.input_scale)
            found[number, place] = made[shape, place]
    return found


def _drawn(form: Coded | Float | Sparse, shape: Shape) -> dict[str, NDArray[Any]]:
    """Return the planes of a matrix with random codes, for the extension."""
    found = {name: Array(p.dtype, _numbers(name, p)) for name, p in form.planes(shape).items()}
    if not isinstance(form, Sparse):
        return planes(Planar(form, found, shape))
    found["mask"] = Array("U8", _mask(form, shape))
    kept = Plane("U8", (int(np.unpackbits(found["mask"].data).sum(dtype=np.int64)),))
    found["codes"] = Array("U8", _numbers("codes", kept))  # a byte each
    return planes(Planar(form.inner, found, shape))


def _numbers(name: str, plane: Plane) -> NDArray[Any]:
    """Return numbers of ordinary size: how fast they are multiplied does not depend on them."""
    kind = KINDS[plane.dtype]
    if plane.dtype in ("F32", "F16", "BF16"):
        drawn = _chance() if name not in CONSTANTS else np.full(1, CONSTANTS[name], np.float32)
        if plane.dtype == "BF16":
            drawn = (drawn.view(np.uint32) >> 16).astype(np.uint16)
        return np.resize(drawn.astype(kind, copy=False), plane.shape)
    if name == "scale":
        return np.full(plane.shape, BYTES[plane.dtype], kind)
    return np.resize(_chance().view(np.uint8), plane.shape).view(kind)


@cache
def _chance() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(PERIOD, np.float32) * np.float32(0.02)


def _mask(form: Sparse, shape: Shape) -> NDArray[np.uint8]:
    """Return a bit for each weight, as many set in each group or, evenly, row as the pattern keeps."""
    rows, cols = shape
    size, kept = cols, form.pattern.of_matrix(rows, cols) // rows
    if isinstance(form.pattern, Within):
        size, kept = form.pattern.group, form.pattern.kept
    groups = np.random.default_rng(0).random((min(rows, DRAWN), -(-cols // size), size), np.float32)
    found = (groups.argsort(2).argsort(2) < kept).reshape(len(groups), -1)[:, :cols]
    return np.resize(packed(found.astype(np.uint8), 1), (rows, -(-cols // 8)))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // LINE) * LINE
