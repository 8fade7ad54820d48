"""Operators on rows equal torch's, at widths around vectors, on every tier."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from whet.formats.spec import EXAMPLES, parse
from whet.formats.weight import written
from whet.graph.executors.weights import table
from whet.kernels.native import missing, native
from whet.model.mlp import NONLINEARITIES
from whet.store.array import Array, Planar

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

TIERS = native().tiers()
WIDTHS = [1, 3, 4, 7, 8, 15, 16, 17, 31, 64, 65, 257, 2049]
ROWS = 5
Tell = Callable[[Any, tuple[int, int], tuple[int, int]], None]


def computed(x: np.ndarray, tier: str, tell: Tell, given: dict | None = None) -> np.ndarray:
    """Return what an operator makes of rows, which come from a table."""
    rows, width = x.shape
    pool = native().Pool(1, 1, 16, 1, 1, 1, "f32")
    size = 4 * rows * width
    made = native().Program(2, tier, rows, rows, 1, rows, width, 3 * size, pool)
    plain = {"rows": rows, "width": width, "number": "F32", "plain": x}
    made.embed((0, width), given or plain, 1.0, None, 0)
    tell(made, (0, width), (size, width))
    made.last((size, width), (2 * size, width), width)
    made.seal((2 * size, width), 1)
    ids = np.arange(rows, dtype=np.int32)
    return made.step(ids, [(rows, 0, np.zeros(1, np.int32), 0)], ids)


def numbers(width: int, spread: float = 3.0) -> np.ndarray:
    chance = np.random.default_rng(width)
    return (chance.standard_normal((ROWS, width)) * spread).astype(np.float32)


def close(found: np.ndarray, expected: Tensor, bound: float) -> bool:
    return float(np.abs(found - expected.numpy()).max()) <= bound


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("width", WIDTHS)
def test_norms(tier: str, width: int):
    x, gain, bias = numbers(width), numbers(width)[0], numbers(width)[1]
    t = torch.from_numpy(x)

    def rms(made, a, out):
        made.norm(a, out, "rms", 1e-5, width, 1, gain, None)

    def layer(made, a, out):
        made.norm(a, out, "layer", 1e-5, width, 1, gain, bias)

    def bare(made, a, out):
        made.norm(a, out, "layer", 1e-5, width, 1, None, None)

    scaled = functional.rms_norm(t, (width,), torch.from_numpy(gain), 1e-5)
    assert close(computed(x, tier, rms), scaled, 2e-5)
    both = torch.from_numpy(gain), torch.from_numpy(bias)
    assert close(computed(x, tier, layer), functional.layer_norm(t, (width,), *both, 1e-5), 2e-4)
    assert close(computed(x, tier, bare), functional.layer_norm(t, (width,)), 2e-4)


@pytest.mark.parametrize("tier", TIERS)
def test_norms_of_heads_and_of_sums(tier: str):
    x, gain = numbers(48), numbers(12)[0]

    def heads(made, a, out):
        made.norm(a, out, "rms", 1e-6, 12, 4, gain, None)

    def added(made, a, out):
        made.norm(a, out, "rms", 1e-6, 48, 1, None, None, a, a)  # the sum goes over its addends

    t = torch.from_numpy(x)
    apart = functional.rms_norm(t.unflatten(-1, (4, 12)), (12,), torch.from_numpy(gain), 1e-6)
    assert close(computed(x, tier, heads), apart.flatten(-2), 1e-5)
    assert close(computed(x, tier, added), functional.rms_norm(2 * t, (48,), None, 1e-6), 1e-5)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("kind", NONLINEARITIES)
@pytest.mark.parametrize("width", [1, 16, 19, 2049, 5000])
def test_nonlinearities(tier: str, kind: str, width: int):
    x = numbers(width, 6.0)
    x[0, 0], x[1, 0], x[2, 0] = 120.0, -120.0, 0.0
    t = torch.from_numpy(x)

    def activate(made, a, out):
        made.pointwise("activate", a, None, out, width, 1.0, kind)

    def gate(made, a, out):
        made.pointwise("gate", a, a, out, width, 1.0, kind)

    act = NONLINEARITIES[kind]
    assert close(computed(x, tier, activate), act(t), 5e-6)
    assert close(computed(x, tier, gate), act(t) * t, 1e-4)


@pytest.mark.parametrize("tier", TIERS)
def test_sums_scales_and_caps(tier: str):
    x = numbers(67, 20.0)
    x[0, :2] = 1e-4, -1e-4
    t = torch.from_numpy(x)
    cases: dict[str, Tensor] = {"add": t + t, "scale": t * 0.3, "cap": 0.3 * torch.tanh(t / 0.3)}
    for kind, expected in cases.items():

        def tell(made, a, out, kind=kind):
            made.pointwise(kind, a, a if kind == "add" else None, out, 67, 0.3)

        assert close(computed(x, tier, tell), expected, 2e-6)


TABLES = [name for name in EXAMPLES if name != "f32" and "lowrank" not in name]


@pytest.mark.parametrize("form", TABLES)
def test_tables_of_every_format(form: str):
    dense = torch.randn(ROWS, 96, generator=torch.Generator().manual_seed(0))
    weight = written(dense, parse(form))
    planes = {name: _array(plane) for name, plane in weight.planes.items()}
    given = table(Planar(weight.format, planes, weight.shape))

    def copy(made, a, out):
        made.pointwise("copy", a, None, out, 96)

    found = computed(np.zeros((ROWS, 96), np.float32), TIERS[0], copy, given)
    assert close(found, weight.dense(), 1e-6)


def _array(plane: Tensor) -> Array:
    kinds = {torch.bfloat16: ("BF16", torch.uint16), torch.float8_e4m3fn: ("F8_E4M3", torch.uint8)}
    if plane.dtype in kinds:
        name, bits = kinds[plane.dtype]
        return Array(name, plane.view(bits).numpy())
    names = {torch.uint8: "U8", torch.float16: "F16", torch.float32: "F32"}
    return Array(names[plane.dtype], plane.numpy())
