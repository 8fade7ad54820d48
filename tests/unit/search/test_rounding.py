"""What the engine rounds besides weights is counted, where it rounds."""

import pytest
import torch

from whet.formats.activate import quantized
from whet.kernels.native import missing
from whet.search import rounding
from whet.search.gradients import Felt, costs
from whet.search.rounding import ROUNDED, rounding_of
from whet.search.unit import level

IN_INT8 = ("int4-g64", "int8-channel", "int3-g64-affine + lowrank-16", "2:4(int4-g64)", "mxfp4",
           "codebook4-g32-shared-int8")  # fmt: skip
IN_BF16 = ("bf16", "nf4-g64", "fp8-e4m3-channel", "codebook4-channel", "nvfp4")


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize("name", IN_INT8)
def test_integer_codes_are_multiplied_with_int8(name: str) -> None:
    assert rounding_of(level(name)) == ROUNDED


def test_a_level_may_name_what_it_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    named = level("int8-channel on int16-g32")
    assert str(named) == "int8-channel on int16-g32"
    assert named.written == level("int8-channel")
    assert str(rounding_of(named)) == "int16-g32"
    monkeypatch.setattr(rounding, "missing", lambda: "no compiler")
    assert str(rounding_of(named)) == "int16-g32"


@pytest.mark.parametrize("name", IN_BF16)
def test_other_codes_keep_their_activations(name: str) -> None:
    assert rounding_of(level(name)) is None


def test_without_kernels_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "missing", lambda: "no compiler")
    assert rounding_of(level("int4-g64")) is None


def test_costs_are_of_the_output_with_both_errors() -> None:
    g = torch.Generator().manual_seed(0)
    x, w, d = (torch.randn(*shape, generator=g) for shape in ((40, 64), (8, 64), (8, 64)))
    felt, delta = Felt(x, torch.randn(40, 8, generator=g)), 0.01 * d
    moved = felt.moved(w, quantized(x, ROUNDED) - x)
    found, output = costs({"mlp.down": felt}, {"mlp.down": delta}, {"mlp.down": moved})
    change = (quantized(x, ROUNDED) @ w.T + x @ delta.T - x @ w.T) * felt.g
    assert found == pytest.approx(float(change.sum(-1).square().sum()) / 2, rel=1e-3)
    assert output == pytest.approx(float((x @ delta.T).square().sum()), rel=1e-5)
