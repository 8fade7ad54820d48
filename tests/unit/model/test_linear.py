"""Linears, embeddings and heads in any format."""

import pytest
import torch
from tests.unit.model.tiny import source, tokens

from whet.base.errors import FolderError
from whet.formats.activate import quantized, static_scale
from whet.formats.activation import parse_activation
from whet.formats.spec import parse
from whet.formats.weight import written
from whet.kernels import linear as kernels
from whet.model.decoder import load, looked_up
from whet.model.linear import Linear

FORMATS = ("f32", "bf16", "int4-g64", "int3-g64-affine", "int8-channel", "int8-tensor")


def matrix(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FORMATS)
def test_panels_give_what_the_whole_gives(name: str, monkeypatch: pytest.MonkeyPatch):
    weight, x = written(matrix(37, 130), parse(name)), matrix(3, 130, seed=1)
    whole = x @ weight.dense().T
    monkeypatch.setattr(kernels, "PANEL", 130 * 8)
    assert torch.allclose(kernels.reference(x, weight), whole, atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_linear_takes_any_weight_and_keeps_its_bias(name: str):
    bias, x = matrix(1, 6)[0], matrix(4, 130, seed=1)
    linear = Linear(written(matrix(6, 130), parse("bf16")), bias.half())
    linear.replace(written(matrix(6, 130, seed=2), parse(name)))
    expected = x @ linear.weight.dense().T + bias.half().float()
    assert torch.allclose(linear(x), expected, atol=1e-4)
    assert str(linear.weight.format) == name
    names = {n for n, _ in linear.named_buffers()}
    assert names == {"bias", *(f"plane_{plane}" for plane in linear.weight.planes)}


@pytest.mark.parametrize("name", FORMATS)
def test_looking_up_gives_the_rows_of_the_table(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("whet.model.decoder.SPAN", 7)
    table = written(matrix(61, 130), parse(name))
    ids = torch.tensor([60, 0, 3, 3, 59, 8])
    assert torch.equal(looked_up(table, ids), table.dense()[ids])


def test_a_tied_head_follows_its_embedding():
    model = load(source("llama-tied"))
    model.embedding.linears["embed"].replace(written(matrix(61, 32), parse("int4-g64")))
    assert model.head.linears["head"] is model.embedding.linears["embed"]
    assert model.head.sites[0].tied == "embed"


@torch.no_grad()
def test_the_head_shows_what_it_reads():
    model, found = load(source("gemma2")), {}
    hidden = torch.randn(2, 3, 32)
    logits = model.head(hidden, lambda name, value: found.update({name: value}))
    assert list(found) == list(model.head.taps)
    assert torch.allclose(4 * torch.tanh(model.head.linear(found["head.in"]) / 4), logits)


def test_a_sequence_beyond_the_learned_positions_is_refused():
    with pytest.raises(FolderError, match="65 tokens"):
        load(source("gpt2"))(tokens(65))
    model = load(source("opt"))
    cache = model.new_cache()
    model(tokens(64), cache)
    with pytest.raises(FolderError, match="65 tokens"):
        model(tokens(1), cache)


@pytest.mark.parametrize("name", ["int8-token", "int4-g128", "fp8-e4m3-token"])
def test_the_input_is_quantized_where_asked(name: str):
    weight, x = written(matrix(6, 130), parse("bf16")), matrix(4, 130, seed=1)
    activation = parse_activation(name)
    linear = Linear(weight, activation=activation)
    assert torch.allclose(linear(x), quantized(x, activation) @ weight.dense().T, atol=1e-5)
    assert not torch.allclose(linear(x), x @ weight.dense().T, atol=1e-5)


@pytest.mark.parametrize("name", ["int8-token", "int16-g32", "fp8-e4m3-token"])
def test_gradients_pass_over_the_rounding_of_inputs(name: str):
    weight, x = written(matrix(6, 130), parse("f32")), matrix(4, 130, seed=1).requires_grad_()
    linear = Linear(weight, activation=parse_activation(name))
    linear(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, weight.dense().sum(0).expand(4, -1), atol=1e-5)
    assert torch.allclose(linear(x), linear(x.detach()), atol=1e-5)


def test_a_fixed_scale_is_used_and_moves_with_the_layer():
    activation = parse_activation("int8-tensor-static")
    scale = static_scale(activation, torch.tensor(-0.1), torch.tensor(0.1))
    weight, x = written(matrix(6, 130), parse("bf16")), matrix(4, 130, seed=1)
    linear = Linear(weight, activation=activation, input_scale=scale)
    assert torch.allclose(linear(x), quantized(x, activation, scale) @ weight.dense().T, atol=1e-5)
    assert "input_scale" in dict(linear.named_buffers())
