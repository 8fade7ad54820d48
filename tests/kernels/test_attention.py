"""Attention over pages equals softmax in float64, at the edges of pages, pieces and stretches.

A program looks up rows that hold queries, keys and values, stores, attends, and returns what came.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from whet.kernels.native import missing, native

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

TIERS = native().tiers()
BOUNDS = {"f32": 2e-6, "f16": 3e-3, "bf16": 2e-2, "int8": 4e-2, "kv4": 0.5, "kv2": 2.0}
LONGEST = 1100


@dataclass(frozen=True)
class Shape:
    heads: int = 4
    kv_heads: int = 2
    dim: int = 16
    window: int = 0
    cap: float = 0.0

    @property
    def width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.dim


def program(shape: Shape, table: np.ndarray, tier: str, kind: str, *, tokens: int, threads: int):
    pool = native().Pool(1, shape.kv_heads, shape.dim, 64, 4, tokens // 64 + 8, kind)
    out, vocab = 4 * shape.width * tokens, shape.heads * shape.dim
    arena = out + 8 * vocab * tokens
    made = native().Program(threads, tier, tokens, tokens, 4, LONGEST, vocab, arena, pool)
    plain = {"rows": len(table), "width": shape.width, "number": "F32", "plain": table}
    made.embed((0, shape.width), plain, 1.0, None, 0)
    k = 4 * shape.heads * shape.dim
    v = k + 4 * shape.kv_heads * shape.dim
    made.store((k, shape.width), (v, shape.width), 0)
    scale = shape.dim**-0.5
    made.attend((0, shape.width), (out, vocab), 0, shape.heads, scale, shape.window, shape.cap)
    logits = out + 4 * vocab * tokens
    made.last((out, vocab), (logits, vocab), vocab)
    made.seal((logits, vocab), shape.heads // shape.kv_heads)
    return made


def run(made, cuts: list[list[tuple[int, int]]], first: int = 0) -> dict[int, np.ndarray]:
    """Run steps of (sequence, tokens); sequence s reads the table from 2000 s on."""
    length: dict[int, int] = {}
    found: dict[int, list[np.ndarray]] = {}
    for step in cuts:
        ids, told = [], []
        for s, count in step:
            start = length.get(s, 0)
            ids.append(np.arange(start, start + count) + 2000 * s)
            pages = np.arange(18, dtype=np.int32)[::-1].copy() + 18 * s
            told.append((count, start, pages, s))
            length[s] = start + count
        tokens = np.concatenate(ids).astype(np.int32)
        rows = made.step(tokens, told, np.arange(len(tokens), dtype=np.int32))
        done = 0
        for s, count in step:
            found.setdefault(s, []).append(rows[done : done + count])
            done += count
    return {s: np.concatenate(rows) for s, rows in found.items()}


def expected(shape: Shape, rows: np.ndarray) -> np.ndarray:
    """Return attention of a sequence, in float64."""
    time, dim = len(rows), shape.dim
    q, k, v = np.split(
        rows.astype(np.float64).reshape(time, -1, dim),
        [shape.heads, shape.heads + shape.kv_heads],
        axis=1,
    )
    k, v = (np.repeat(x, shape.heads // shape.kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * dim**-0.5
    if shape.cap:
        scores = shape.cap * np.tanh(scores / shape.cap)
    query, key = np.arange(time)[:, None], np.arange(time)
    seen = key <= query
    if shape.window:
        seen &= key > query - shape.window
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(time, -1)


def table(shape: Shape, rows: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, shape.width), np.float32)


SHAPES = [
    Shape(), Shape(4, 4, 8), Shape(7, 1, 12), Shape(8, 1, 64), Shape(6, 2, 80), Shape(2, 2, 128),
    Shape(window=5), Shape(window=64), Shape(window=65), Shape(window=300), Shape(cap=3.0),
    Shape(71, 1, 16), Shape(12, 4, 40, 70, 2.0),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("tier", TIERS)
def test_prefill_equals_softmax(shape: Shape, kind: str, tier: str):
    rows = table(shape)
    for time in (1, 2, 63, 64, 65, 129, 321):
        made = program(shape, rows, tier, kind, tokens=400, threads=2)
        found = run(made, [[(0, time)]])[0]
        assert np.abs(found - expected(shape, rows[:time])).max() <= BOUNDS[kind]


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("shape", [Shape(), Shape(8, 1, 64), Shape(window=70), Shape(6, 2, 80)])
def test_cuts_batches_and_threads_give_the_same_bits(shape: Shape, kind: str, tier: str):
    rows = table(shape, 8000)
    time = 700
    made = program(shape, rows, tier, kind, tokens=800, threads=2)
    whole = {s: run(made, [[(s, time)]])[s] for s in range(3)}
    for threads in (1, 3):
        made = program(shape, rows, tier, kind, tokens=800, threads=threads)
        cuts = [[(0, 60), (1, 1), (2, 300)], [(2, 1), (0, 5)], [(1, 200), (0, 320), (2, 44)]]
        cuts += [[(0, 1), (1, 1), (2, 1)] for _ in range(3)]
        counts = {s: sum(n for step in cuts for t, n in step if t == s) for s in range(3)}
        found = run(made, [*cuts, *[[(s, time - n)] for s, n in counts.items()]])
        for s in range(3):
            assert np.array_equal(found[s], whole[s])


def test_stale_pages_do_not_matter():
    shape = Shape()
    rows = table(shape)
    rows[1000:] = np.nan
    for kind in BOUNDS:
        made = program(shape, rows, TIERS[-1], kind, tokens=400, threads=1)
        clean = run(made, [[(0, 33)]])[0]
        pages = np.arange(18, dtype=np.int32)[::-1].copy()
        bad = np.arange(1000, 1130, dtype=np.int32)
        made.step(bad, [(130, 0, pages, 0)], np.arange(1, dtype=np.int32))
        assert np.array_equal(run(made, [[(0, 33)]])[0], clean)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"tokens": [9999]}, "token"), ({"tokens": [-1]}, "token"), ({"start": LONGEST}, "long"),
        ({"pages": []}, "pages"), ({"pages": [64]}, "page"), ({"slot": 4}, "slot"),
        ({"wanted": [1]}, "wanted"), ({"count": 2}, "tokens"), ({"tokens": [0, 1]}, "tokens"),
    ],
)  # fmt: skip
def test_steps_that_lie_are_refused(given: dict, fault: str):
    shape = Shape()
    made = program(shape, table(shape), TIERS[0], "bf16", tokens=8, threads=1)
    told = {"tokens": [0], "count": 1, "start": 0, "pages": [0], "slot": 0, "wanted": [0], **given}
    numbers = {n: np.array(told[n], np.int32) for n in ("tokens", "pages", "wanted")}
    piece = (told["count"], told["start"], numbers["pages"], told["slot"])
    with pytest.raises(ValueError, match=fault):
        made.step(numbers["tokens"], [piece], numbers["wanted"])
