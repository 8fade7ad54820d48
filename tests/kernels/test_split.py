"""Numbers of bf16 in 12 bits: nothing is lost, and every tier multiplies by what was there."""

import numpy as np
import pytest
import torch
from tests.kernels.tables import told

from whet.formats.spec import parse
from whet.formats.weight import Weight
from whet.kernels.described import described
from whet.kernels.native import missing, native

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(
        missing() is None and "avx512" not in native().tiers(), reason="no tier splits here"
    ),
]
FORM = parse("bf16")
TIERS = [] if missing() else native().tiers()
SHAPES = [(1, 1), (16, 64), (33, 600), (97, 1100), (160, 515)]
KINDS = ("normal", "outliers", "zeros", "constant")


def numbers(kind: str, rows: int, cols: int) -> torch.Tensor:
    """Weights of a kind, some of which have exponents that no other has."""
    g = torch.Generator().manual_seed(rows)
    w = torch.randn(rows, cols, generator=g) * 0.02
    if kind == "outliers":  # at the ends of tiles and of rows
        strays = min(rows * cols // 1024, 40)
        for i, (r, c) in enumerate([(0, 0), (-1, -1), (-1, 0), (15, 3), (16 % rows, 2)][:strays]):
            w[r, c] = (1e30, -1e-30, 1e4, -3e-38, 0.0)[i]
    if kind == "zeros":
        w[torch.rand(w.shape, generator=g) < 0.5] = 0
    return (torch.full_like(w, -0.75) if kind == "constant" else w).bfloat16()


def laid_out(value: torch.Tensor, tier: str = "avx512") -> np.ndarray:
    weight = Weight(FORM, {"value": value}, tuple(value.shape))
    return native().pack(described(FORM), told(weight), *value.shape, tier, "bf16")


def product(layout: np.ndarray, tier: str, x: torch.Tensor, threads: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.array(native().Matrix(layout, tier).multiply(x.numpy(), threads)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_unpacking_gives_every_bit_back(kind, shape):
    value = numbers(kind, *shape)
    _, planes, *size = native().unpack(laid_out(value))
    assert tuple(size) == shape
    assert planes["value"].tobytes() == value.view(torch.int16).numpy().tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_takes_twelve_bits(kind):
    whole = numbers(kind, 512, 2048)
    assert 12 <= 8 * laid_out(whole).nbytes / whole.numel() < 12.05


def test_where_strays_are_many_numbers_stay_whole():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).reshape(256, 256)
    layout = laid_out(every)
    assert 8 * layout.nbytes / every.numel() > 16
    assert (
        native().unpack(layout)[1]["value"].tobytes() == every.view(torch.int16).numpy().tobytes()
    )


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_numbers(kind, shape, tier):
    value = numbers(kind, *shape)
    layout = laid_out(value)
    x = torch.randn(29, shape[1], generator=torch.Generator().manual_seed(1))
    known, dense = x.bfloat16().double(), value.double()
    bound = 2e-6 * (known.abs() @ dense.abs().T) + 1e-30
    whole = product(layout, tier, x)
    assert ((whole.double() - known @ dense.T).abs() <= bound).all()
    for tokens in (1, 2, 3, 4, 12, 13):
        for threads in (1, 3):
            assert torch.equal(product(layout, tier, x[:tokens], threads), whole[:tokens])


def test_strays_outside_of_their_tile_are_refused():
    value = numbers("outliers", 160, 515)
    layout = laid_out(value)
    whole = np.empty(len(layout) + 64, np.uint8)
    aligned = whole[-whole.ctypes.data % 64 :][: len(layout)]
    aligned[:] = layout
    assert native().Matrix(aligned, "generic") is not None
    often = torch.bincount((value.view(torch.int16).int() & 0xFFFF).flatten() >> 8)
    strays = int(often.sort().values[:-16].sum())
    listed = len(layout) - -(-8 * strays // 64) * 64
    for at, number in ((listed - 64, 1), (listed - 60, 999), (listed, 515), (listed + 4, 160)):
        aligned[:] = layout
        aligned[at : at + 4] = np.array([number], np.uint32).view(np.uint8)
        with pytest.raises(ValueError, match="layout"):
            native().Matrix(aligned, "generic")
