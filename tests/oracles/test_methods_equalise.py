"""AWQ, SmoothQuant and activation quantization against loops over tokens and channels."""

from pathlib import Path

import pytest
import torch
from tests.blocks import demo_block, hidden, observing, recorded, spooled
from torch import Tensor

from whet.calibrate.range import Range
from whet.calibrate.statistics import Seen
from whet.formats.activate import quantized
from whet.formats.activation import parse_activation
from whet.formats.codec import Search
from whet.formats.spec import parse
from whet.methods.quantize.activations import Activations
from whet.methods.quantize.awq import Awq, output_error
from whet.methods.quantize.smoothquant import SmoothQuant
from whet.methods.solve.clip import fixed_scale
from whet.methods.solve.nearest import nearest

TAPS = {"attn.in": ("attn.q", "attn.k", "attn.v"), "mlp.mid": ("mlp.down",)}


def roles(tap: str) -> tuple[str, ...]:
    return TAPS[tap]


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("strength", [0.5, 0.8])
def test_smoothquant_is_the_textbook(tmp_path: Path, tap: str, strength: float) -> None:
    block = demo_block()
    x = hidden(256)
    change = SmoothQuant(strength=strength).rewrite(
        block, roles(tap), observing(block, spooled(tmp_path / "x", x))
    )
    seen = recorded(block, x)[tap]
    weight = torch.cat([block.linears[role].weight.dense() for role in roles(tap)])
    for channel in (0, 1, 7, 128, 255):
        peak = max(abs(float(v)) for v in seen[:, channel])
        column = max(abs(float(v)) for v in weight[:, channel])
        expected = peak**strength / column ** (1 - strength)
        assert float(change.folds[tap][channel]) == pytest.approx(expected, rel=1e-4)
    assert list(change.folds) == [tap]


def test_awq_is_the_textbook(tmp_path: Path) -> None:
    block, x = demo_block(3), hidden(256, samples=2, time=24)
    method = Awq(format=parse("int3-g64"), steps=4)
    spool = spooled(tmp_path / "x", x)
    change = method.rewrite(block, ("mlp.down",), observing(block, spool))
    seen = recorded(block, x)["mlp.mid"].double()
    weight = block.linears["mlp.down"].weight.dense()
    size = torch.tensor([sum(abs(float(v)) for v in column) / len(seen) for column in seen.T])
    lost = {}
    for trial in (0.0, 0.25, 0.5, 0.75):
        scale = size**trial
        scale = scale / (scale.max() * scale.min()).sqrt()
        rounded = nearest(weight * scale, parse("int3-g64"), Search("mse", 10)).dense() / scale
        output = seen @ weight.double().T - seen @ rounded.double().T
        lost[trial] = float(output.square().sum())
    best = min(lost, key=lambda trial: lost[trial])
    assert change.facts["mlp.mid"]["exponent"].value == best
    ratio = change.facts["mlp.mid"]["error_ratio"].value
    assert ratio == pytest.approx(lost[best] / lost[0.0], rel=0.02)
    scale = size**best
    torch.testing.assert_close(
        change.folds["mlp.mid"], scale / (scale.max() * scale.min()).sqrt(), rtol=1e-4, atol=0
    )


def test_the_output_error_of_awq_is_that_of_the_tokens() -> None:
    g = torch.Generator().manual_seed(0)
    weight, x = torch.randn(8, 32, generator=g), torch.randn(50, 32, generator=g)
    scale = torch.rand(32, generator=g) + 0.5
    delta = output_error(weight, scale, x.T @ x, parse("bf16"))
    rounded = (weight * scale).bfloat16().float() / scale
    expected = (x @ (rounded - weight).T).square().sum()
    assert delta == pytest.approx(float(expected), rel=1e-3)


def squared(x: Tensor, scale: Tensor, name: str) -> float:
    return float((quantized(x, parse_activation(name), scale) - x).double().square().sum())


@pytest.mark.parametrize("name", ["int8-tensor-static", "int8-tensor-affine-static"])
def test_a_fixed_range_is_as_good_as_the_best_of_many(name: str) -> None:
    x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)) ** 3 + 0.5
    seen = Range(8)
    seen.add(Seen(x))
    activation = parse_activation(name)
    found = squared(x, fixed_scale(seen, activation, "mse", 0.99), name)
    low, high = x.min(), x.max()
    from whet.formats.activate import static_scale

    trials = [static_scale(activation, low * c, high * c) for c in torch.linspace(0.02, 1, 200)]
    assert found <= 1.02 * min(squared(x, trial, name) for trial in trials)
    widest = fixed_scale(seen, activation, "minmax", 0.99)
    torch.testing.assert_close(widest, static_scale(activation, low, high))


def test_percentile_and_divergence_clip_outliers() -> None:
    x = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    x[7, 3] = 300.0
    seen = Range(8)
    seen.add(Seen(x))
    activation = parse_activation("int8-tensor-static")
    wide = float(fixed_scale(seen, activation, "minmax", 0.99)[0])
    assert float(fixed_scale(seen, activation, "kl", 0.99)[0]) < wide / 5
    inner = fixed_scale(seen, activation, "percentile", 0.999)
    expected = float(x.flatten().quantile(0.999)) / 127.5
    assert float(inner[0]) == pytest.approx(expected, rel=0.1)


def test_activations_are_attached_with_the_range_that_was_seen(tmp_path: Path) -> None:
    block, x = demo_block(), hidden(256)
    observe = observing(block, spooled(tmp_path / "x", x))
    dynamic = Activations().rewrite(block, ("attn.q", "mlp.down"), observe)
    assert dynamic.activations == {
        role: (parse_activation("int8-token"), None) for role in ("attn.q", "mlp.down")
    }
    static = Activations(activation=parse_activation("int8-tensor-static"), range="minmax")
    change = static.rewrite(block, ("attn.q", "attn.k", "mlp.down"), observe)
    seen = recorded(block, x)
    for role, tap in {"attn.q": "attn.in", "attn.k": "attn.in", "mlp.down": "mlp.mid"}.items():
        scale = change.activations[role][1]
        assert scale is not None
        assert float(scale[0]) == pytest.approx(float(seen[tap].abs().max()) / 127.5, rel=1e-5)
        assert change.facts[role]["input_high"].value == pytest.approx(float(seen[tap].max()))
