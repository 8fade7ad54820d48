"""Table kernels of every tier equal the codecs; layouts are reversible; batches change nothing."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from tests.kernels.tables import random_weight, stored, terms, told

from whet.formats import element
from whet.formats.log import bases, log_levels, sum_levels
from whet.formats.minifloat import patterns
from whet.formats.quantile import quantile_levels
from whet.formats.spec import EXAMPLES
from whet.kernels.described import described
from whet.kernels.levels import levels
from whet.kernels.native import missing, native

TIERS = [] if missing() else native().tiers()
needs_native = pytest.mark.skipif(missing() is not None, reason=str(missing()))

NAMES = tuple(name for name in EXAMPLES if "lowrank" not in name) + tuple(
    name
    for bits in range(2, 9)
    for name in (f"codebook{bits}-channel", f"codebook{bits}-g32-shared", f"nf{bits}-g40")
) + (
    "int4-g10-affine", "int7-g100-affine", "int5-g7", "int6-g128", "log7-g64", "nf4-g128",
    "codebook4-g48", "codebook3-g128", "codebook5-g32", "codebook8-g64", "fp6-e2m3-channel",
    "fp8-e5m2-tensor", "nvfp4", "fp4-g16-e4m3", "codebook4-g32-shared-int8-f16",
    "codebook6-channel-shared-int8",
)  # fmt: skip
SHAPES = [(1, 1), (15, 7), (16, 64), (17, 66), (33, 600), (97, 1100)]  # about tiles of 16 rows
TOKENS = [1, 2, 3, 4, 5, 11, 12, 13, 24, 25]
ROUNDING = {"avx512": 1e-5, "avx512bf16": 1e-5}  # a level is two bf16 numbers there


def laid_out(term, tier):
    return native().pack(described(term.format), told(term), *term.shape, tier, "bf16")


def inputs(tokens, cols, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, cols, generator=g) * torch.randn(tokens, 1, generator=g).exp()


def product(matrix, x, threads=1):
    return torch.from_numpy(np.array(matrix.multiply(x.contiguous().numpy(), threads)))


@needs_native
@pytest.mark.parametrize("name", NAMES)
def test_unpacking_undoes_packing(name):
    for shape in SHAPES:
        for term in terms(random_weight(name, *shape)):
            for tier in TIERS:
                form, planes, *size = native().unpack(laid_out(term, tier))
                assert form == described(term.format)
                assert tuple(size) == shape
                expected = stored(term)
                assert planes.keys() == expected.keys()
                for plane, found in planes.items():
                    assert found.tobytes() == expected[plane].tobytes(), (plane, shape)


@needs_native
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", NAMES)
def test_products_are_the_codecs_with_activations_in_bf16(name, tier):
    for shape in SHAPES:
        for term in terms(random_weight(name, *shape)):
            x, dense = inputs(29, shape[1]), term.dense().double()
            found = product(native().Matrix(laid_out(term, tier), tier), x).double()
            known = x.bfloat16().double()
            bound = ROUNDING.get(tier, 4e-7) * (known.abs() @ dense.abs().T) + 1e-30
            assert ((found - known @ dense.T).abs() <= bound).all(), shape


@needs_native
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_token_is_multiplied_alike_in_every_batch_and_by_every_team(name, tier):
    for shape in SHAPES[3:]:
        term = terms(random_weight(name, *shape))[-1]
        matrix, x = native().Matrix(laid_out(term, tier), tier), inputs(max(TOKENS), shape[1])
        whole = product(matrix, x)
        for tokens in TOKENS:
            for threads in (1, 3):
                assert torch.equal(product(matrix, x[:tokens], threads), whole[:tokens])
        assert torch.equal(product(matrix, x[5:6]), whole[5:6])


@needs_native
def test_a_damaged_layout_is_refused():
    term = random_weight("nf4-g64", 33, 128)
    layout = laid_out(term, "generic").copy()
    whole = np.empty(len(layout) + 64, np.uint8)
    aligned = whole[-whole.ctypes.data % 64 :][: len(layout)]
    for at in range(256, 512, 4):
        aligned[:] = layout
        aligned[at : at + 4] ^= 0x41
        with suppress(ValueError):
            native().Matrix(aligned, "generic")
    aligned[:] = layout
    with pytest.raises(ValueError, match="layout"):
        native().Matrix(aligned[:-64], "generic")


@needs_native
def test_activations_of_eight_bits_are_refused():
    term = random_weight("nf4-g64", 16, 64)
    with pytest.raises(ValueError, match="bf16"):
        native().pack(described(term.format), told(term), 16, 64, "generic", "int8")


FIXED = {
    element.Quantile: lambda kind: quantile_levels(kind.bits).tolist(),
    element.PowerSum: lambda kind: sum_levels(kind.bits),
    element.Log: lambda kind: log_levels(kind.bits, kind.base),
    element.Minifloat: lambda kind: patterns(kind).tolist(),
    element.Integer: lambda kind: range(-(2 ** (kind.bits - 1)), 2 ** (kind.bits - 1)),
}
KINDS = [
    *(kind(bits) for kind, widths in element.WIDTHS.items() if kind in FIXED for bits in widths),
    *element.MINIFLOATS,
    element.Log(3, 1.86),
]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != element.Log(8)], ids=str)
def test_levels_are_the_codecs_bit_for_bit(kind):
    found, expected = levels(kind), np.array(FIXED[type(kind)](kind), np.float32)
    assert len(found) == 2**kind.bits
    assert found[: len(expected)].tobytes() == expected.tobytes()
    assert (found[len(expected) :] == expected[-1]).all()


@pytest.mark.parametrize("bits", range(2, 8))
def test_levels_of_a_tuned_base_are_the_codecs(bits):
    for base in bases(bits):
        found = levels(element.Log(bits, None), base)
        assert found[:-1].tolist() == list(log_levels(bits, base))[: 2**bits - 1]
