"""Blocks of GGUF as planes of whet: the numbers are those of the gguf package, bit for bit."""

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.gguf_files import random_rows

from whet.formats.spec import parse
from whet.store.array import Array, Planar
from whet.store.dtypes import weight_of
from whet.store.gguf.kinds import KINDS, Kind
from whet.store.gguf.planes import dense, plane

BLOCKS = [kind for kind in KINDS.values() if not kind.plain]


def dequantized(raw: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
    """What the gguf package reads; it has no reader of Q1_0, whose bits are signs."""
    if kind.name != "Q1_0":
        return gguf.dequantize(raw, gguf.GGMLQuantizationType[kind.name])
    found: list[list[float]] = []
    for row in raw:
        found.append([])
        for block in row.reshape(-1, kind.nbytes):
            scale = float(block[:2].view(np.float16)[0])
            found[-1] += [
                scale if block[2 + i // 8] >> (i % 8) & 1 else -scale for i in range(kind.size)
            ]
    return np.asarray(found, np.float32)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_planes_mean_what_gguf_dequantizes(kind: Kind) -> None:
    for rows, cols, seed in ((5, 512, 0), (1, 256, 1), (9, 768, 2)):
        raw = random_rows(kind, rows, cols, seed)
        expected = dequantized(raw, kind)
        format_, shape = parse(kind.format), (rows, cols)
        planes = {
            name: Array(item.dtype, plane(kind, raw, name, shape))
            for name, item in format_.planes(shape).items()
        }
        for name, item in format_.planes(shape).items():
            assert planes[name].shape == item.shape, name
        found = weight_of(Planar(format_, planes, shape)).dense().numpy()
        assert np.array_equal(found, expected)
        assert np.array_equal(dense(kind, raw, shape), expected)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_sizes_are_those_of_gguf(kind: Kind) -> None:
    number = gguf.GGMLQuantizationType[kind.name]
    assert KINDS[number.value] is kind
    assert gguf.GGML_QUANT_SIZES[number] == (kind.size, kind.nbytes)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_large_matrices_are_taken_apart_a_few_rows_at_a_time(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = random_rows(kind, 7, 512)
    whole = plane(kind, raw, "codes" if "+" not in kind.format else "0.codes", (7, 512))
    monkeypatch.setattr("whet.store.gguf.planes.PIECE", 1024)
    pieces = plane(kind, raw, "codes" if "+" not in kind.format else "0.codes", (7, 512))
    assert np.array_equal(whole, pieces)
