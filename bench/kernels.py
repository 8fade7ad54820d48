"""How fast matrices in each format are multiplied: one token against memory, many against torch.

    python bench/kernels.py [FORMAT ...] [--shape 2048x2048 ...] [--threads 1 2] [--json FILE]

One token: the time of a product, and the stored bytes read in a second as a share of what this
machine reads from memory, measured in between. Enough copies of a matrix take turns that no cache
holds them. Many tokens: operations in a second as a share of torch's product of int8 or bf16
matrices (2048 x 2048 x 2048, measured in between; left out where torch is missing). Medians of
rounds. Activations of integers are int8: a scale for 32 inputs of a token; of a name with `@token`,
one for the token; of one with `@int16` they are int16. Of all other formats, and of names with
`@bf16`, they are bf16.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from whet.formats.element import Integer
from whet.formats.pattern import Pattern, Within
from whet.formats.spec import WIDTH, Coded, Float, Plane, Sparse, parse
from whet.kernels.described import described
from whet.kernels.levels import levels
from whet.kernels.native import native

FORMATS = (
    "int2-g64", "int3-g64-affine", "int4-g32", "int4-g64-affine", "int4-g128", "int5-g64",
    "int6-g64", "int8-g32", "int8-channel@token", "int8-channel@int16",
    "bf16", "f16", "f32", "int4-g64@bf16", "nf4-g64", "nf3-g64", "fp4-g64", "mxfp4", "nvfp4",
    "fp6-e3m2-g64", "fp8-e4m3-channel", "mxfp8", "log4-g64", "codebook4-tensor",
    "codebook4-channel", "codebook4-g64",
)  # fmt: skip
SHAPES = ("2048x2048", "5632x2048", "2048x5632", "32000x2048")
UNCACHED = 192 << 20  # bytes that take turns
MANY = 512  # tokens
SQUARE = 2048


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one format, shape and number of threads."""

    name: str
    rows: int
    cols: int
    threads: int
    one: float  # a product with one token [s]
    read: float  # of stored bytes [byte/s]
    bandwidth: float  # of memory [byte/s]
    many: float  # operations of many tokens [1/s]
    limit: float | None  # operations of torch's product in the same type [1/s]


def random_plane(plane: Plane) -> np.ndarray:
    """Bytes that are valid numbers in any type: small exponents."""
    random = np.random.default_rng(0)
    return random.integers(0, 63, int(np.prod(plane.shape)) * WIDTH[plane.dtype], dtype=np.uint8)


def mode(name: str) -> str:
    """How activations enter the products of a name."""
    format_, _, activation = name.partition("@")
    known = parse(format_)
    known = known.inner if isinstance(known, Sparse) else known
    if isinstance(known, Coded) and isinstance(known.element, Integer) and activation != "bf16":
        return {"": "int8", "token": "token8"}.get(activation, activation)
    return "bf16"


def mask(pattern: Pattern, rows: int, cols: int) -> np.ndarray:
    """Which weights are kept: in each line as many as a pattern says, anywhere."""
    size, kept = cols, pattern.of_row(cols)
    if isinstance(pattern, Within):
        size, kept = pattern.group, pattern.kept
    elif kept is None:
        size, kept = rows * cols, pattern.of_matrix(rows, cols)
    chance = np.random.default_rng(0).random((rows * cols // size, size), np.float32)
    return (chance.argsort(axis=1).argsort(axis=1) < kept).reshape(rows, cols)


def layout(name: str, rows: int, cols: int) -> np.ndarray:
    """A random matrix laid out for the fastest tier."""
    format_ = parse(name.partition("@")[0])
    assert isinstance(format_, Coded | Float | Sparse)
    planes = {key: random_plane(plane) for key, plane in format_.planes((rows, cols)).items()}
    if str(format_) == "bf16":  # its layout depends on the exponents that weights have
        normal = np.random.default_rng(0).normal(0, 0.02, (rows, cols)).astype(np.float32)
        planes["value"] = (normal.view(np.uint32) >> 16).astype(np.uint16)
    table = levels(format_.element, 1.5) if isinstance(format_, Coded) else None
    if table is not None:
        planes["table"] = table
    if isinstance(format_, Sparse):  # a bit for each weight, and a byte for each that is kept
        kept = mask(format_.pattern, rows, cols)
        planes["mask"] = np.packbits(kept, axis=1, bitorder="little")
        planes["codes"] = np.random.default_rng(0).integers(0, 256, int(kept.sum()), np.uint8)
    return native().pack(described(format_), planes, rows, cols, native().chosen_tier(), mode(name))


def copies(first: np.ndarray, size: int) -> list[object]:
    """Matrices over copies of a layout, of `size` bytes together or one.

    They lie in one piece, so that the pages of memory are as large for small matrices as for others.
    """
    found: list[object] = []
    count, step = max(1, -(-size // len(first))), -(-len(first) // 64) * 64
    room = np.empty(count * step + 64, np.uint8)
    start = -room.ctypes.data % 64
    for at in range(start, start + count * step, step):
        own = room[at : at + len(first)]
        own[:] = first
        found.append(native().Matrix(own, native().chosen_tier()))
    return found


def torch_rate(threads: int, kind: str) -> Callable[[], float] | None:
    """What measures torch's rate of int8 or bf16 products [1/s], where there is torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads)
    dtype, product = (torch.bfloat16, torch.mm) if kind == "bf16" else (torch.int8, torch._int_mm)
    left, right = (torch.ones(SQUARE, SQUARE, dtype=dtype) for _ in range(2))

    def rate() -> float:
        begin = perf_counter()
        product(left, right)
        return 2 * SQUARE**3 / (perf_counter() - begin)

    rate()
    return rate


def measured(name: str, rows: int, cols: int, threads: int, rounds: int) -> Row:
    """Measure one format and shape."""
    engine, first = native(), layout(name, rows, cols)
    turns = copies(first, UNCACHED)
    rate = torch_rate(threads, mode(name))
    one, bandwidth, many, limit = [], [], [], []
    for _ in range(rounds):
        bandwidth.append(engine.read_bandwidth(UNCACHED, threads, 3))
        one.append(min(engine.seconds(turns, 1, threads, 3)) / len(turns))
        many.append(min(engine.seconds(turns[:1], MANY, threads, 3)))
        if rate is not None:
            limit.append(max(rate() for _ in range(3)))
    return Row(
        name, rows, cols, threads, median(one), len(first) / median(one), median(bandwidth),
        2 * rows * cols * MANY / median(many), median(limit) if limit else None,
    )  # fmt: skip


def line(row: Row) -> str:
    """A measurement in words."""
    share = "" if row.limit is None else f" {row.many / row.limit:5.0%}"
    return (
        f"{row.name:20} {row.rows:6}x{row.cols:<5} {row.threads:2} {row.one * 1e6:9.1f} us"
        f" {row.read / 1e9:6.1f} GB/s {row.read / row.bandwidth:5.0%}"
        f" {row.many / 1e9:7.0f} GOP/s{share}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--shape", nargs="+", default=SHAPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = []
    for name in asked.formats:
        for shape in asked.shape:
            for threads in asked.threads:
                height, width = map(int, shape.split("x"))
                rows.append(measured(name, height, width, threads, asked.rounds))
                print(line(rows[-1]), flush=True)
    if asked.json is not None:
        asked.json.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()
