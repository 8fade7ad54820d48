"""Quantized activations, and that compressed-tensors sees the same numbers."""

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, compute_dynamic_scales_and_zp

from whet.formats.activate import INT16_TOP, coded, quantized, static_scale
from whet.formats.activation import EXAMPLES, parse_activation


def make(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    x[..., 0] *= 20
    x[:1, :1] = 0
    return x


def fixed(activation, x):
    return static_scale(activation, x.min(), x.max()) if activation.static else None


def their_arguments(activation, size):
    strategy = activation.strategy
    return QuantizationArgs(
        num_bits=activation.bits,
        type="float" if activation.element == "fp8-e4m3" else "int",
        symmetric=not activation.affine,
        strategy=strategy,
        group_size=size if strategy == "group" else None,
        dynamic=not activation.static,
    )


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("shape", [(2, 3, 256), (5, 256), (1, 256)])
def test_values_stay_near_and_keep_shape_and_type(name, shape):
    activation, x = parse_activation(name), make(*shape)
    y = quantized(x, activation, fixed(activation, x))
    assert y.shape == x.shape
    assert quantized(x.bfloat16(), activation, fixed(activation, x)).dtype == torch.bfloat16
    step = (x.max() - x.min()) / (15 if activation.bits == 4 else 255)
    assert (y - x).abs().max() <= (x.abs().max() / 16 if "fp8" in name else step * 1.01)
    assert not y[x == 0].any()


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "int16" not in name])
def test_compressed_tensors_sees_the_same_numbers(name):
    activation, x = parse_activation(name), make(2, 7, 256)
    arguments = their_arguments(activation, activation.group)
    if activation.static:
        scale, zero = calculate_qparams(x.min(), x.max(), arguments)
        theirs = fake_quantize(x, scale, zero, arguments)
    else:
        scale, zero = compute_dynamic_scales_and_zp(x, arguments, torch.nn.Identity())
        theirs = fake_quantize(x, scale, zero, arguments)
    assert torch.equal(quantized(x, activation, fixed(activation, x)), theirs)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "fp8" not in name])
def test_codes_are_the_values(name):
    activation, x = parse_activation(name), make(2, 3, 200)  # ragged for groups of 64 and 128
    codes, step, zero = coded(x, activation, fixed(activation, x))
    half = 2 ** (activation.bits - 1)
    assert int(codes.min()) >= -half
    assert int(codes.max()) < half
    values = (codes.float() if zero is None else codes - zero) * step
    flat = values.reshape(2, 3, -1)[..., :200]
    assert torch.equal(flat, quantized(x, activation, fixed(activation, x)))


def test_codes_of_16_bits_are_two_of_8():
    x = make(3, 256)
    codes, step, _ = coded(x, parse_activation("int16-g32"))
    upper = (codes.int() + 128) >> 8
    lower = codes.int() - 256 * upper
    for half in (upper, lower):
        assert -128 <= int(half.min()) <= int(half.max()) <= 127
    assert int(codes.abs().max()) == INT16_TOP
    apart = (quantized(x, parse_activation("int16-g32")) - x).reshape(*step.shape[:-1], -1)
    assert (apart.abs() <= step * 0.5001).all()


def test_tokens_do_not_depend_on_each_other():
    activation = parse_activation("int8-token")
    x = make(6, 64)
    assert torch.equal(quantized(x, activation)[2:4], quantized(x[2:4], activation))


@pytest.mark.parametrize("name", EXAMPLES)
def test_zeros_stay_zeros(name):
    activation, x = parse_activation(name), torch.zeros(2, 64)
    assert not quantized(x, activation, fixed(activation, x)).any()


def test_a_static_range_clips_what_is_beyond_it():
    activation = parse_activation("int8-tensor-static")
    scale = static_scale(activation, torch.tensor(-1.0), torch.tensor(1.0))
    assert scale.shape == (1,)
    wide = quantized(torch.tensor([[5.0, -5.0, 0.5]]), activation, scale)
    torch.testing.assert_close(wide, torch.tensor([[1.0, -1.0, 0.5]]), rtol=0, atol=0.005)
    affine = parse_activation("int8-tensor-affine-static")
    assert static_scale(affine, torch.tensor(-1.0), torch.tensor(3.0)).tolist()[1] == -64
