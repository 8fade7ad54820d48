"""Sparse weights widened for kernels: the same matrices as torch reads."""

import numpy as np
import pytest
import torch
from torch import Tensor

from whet.base.errors import FolderError
from whet.formats.sparse import kept, packed_mask
from whet.formats.spec import SPARSE, Sparse, parse
from whet.formats.weight import written
from whet.graph.executors.dense import masked, widened
from whet.graph.executors.weights import table, terms
from whet.store.array import Array, Planar
from whet.store.dtypes import NAMES, weight_of

BITS = {torch.bfloat16: torch.uint16, torch.float8_e4m3fn: torch.uint8}


def matrix(rows: int, inputs: int) -> Tensor:
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))


def planar(name: str, weight: Tensor) -> Planar:
    made = written(weight, parse(name))
    planes = {
        key: Array(NAMES[plane.dtype], plane.view(BITS.get(plane.dtype, plane.dtype)).numpy())
        for key, plane in made.planes.items()
    }
    return Planar(made.format, planes, made.shape)


@pytest.mark.parametrize(
    "name", [*SPARSE, "2:4(log4-g64-tuned)", "2:4(mxfp4)", "2:4(int8-tensor-affine)"]
)
@pytest.mark.parametrize("shape", [(12, 136), (5, 33), (1, 1)])
def test_widened_is_the_same_matrix(name: str, shape: tuple[int, int]) -> None:
    stored = planar(name, matrix(*shape))
    dense = widened(stored)
    assert isinstance(stored.format, Sparse)
    assert dense.format == stored.format.inner
    expected = stored.format.inner.planes(shape)
    assert {n: (p.dtype, p.shape) for n, p in dense.planes.items()} == {
        n: (p.dtype, p.shape) for n, p in expected.items()
    }
    assert torch.equal(weight_of(dense).dense(), weight_of(stored).dense())
    assert [term.format for term in terms(stored)] == [stored.format.inner]
    assert table(stored)["width"] == shape[1]


@pytest.mark.parametrize("name", SPARSE)
def test_masks_are_those_of_torch(name: str) -> None:
    format_ = parse(name)
    assert isinstance(format_, Sparse)
    mask = kept(matrix(5, 33), format_.pattern)
    plane = packed_mask(mask, format_.pattern)
    assert np.array_equal(masked(plane.numpy(), format_.pattern, 33), mask.numpy())


@pytest.mark.parametrize("name", ["sparse50(int4-g64)", "sparse50-tensor(bf16)"])
def test_a_damaged_mask_is_refused(name: str) -> None:
    stored = planar(name, matrix(4, 64))
    planes = dict(stored.planes) | {"mask": Array("U8", np.full((4, 8), 255, np.uint8))}
    with pytest.raises(FolderError, match="keeps 256 weights, of which 128 are stored"):
        widened(Planar(stored.format, planes, stored.shape))
