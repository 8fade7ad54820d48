"""Rotary positions."""

import pytest
import torch

from whet.model.architecture import Rope
from whet.model.rope import Rotary, frequencies, rotary

KINDS = {
    "default": Rope(),
    "partial": Rope(fraction=0.5),
    "linear": Rope(kind="linear", factor=4.0),
    "llama3": Rope(kind="llama3", factor=8.0, trained=64),
    "yarn": Rope(kind="yarn", factor=4.0, trained=64, gain=1.1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_products_depend_on_distance_alone(kind: str):
    generator = torch.Generator().manual_seed(0)
    turn = Rotary(KINDS[kind], 16).turn
    q, k = (torch.randn(1, 1, 1, 16, generator=generator) for _ in "qk")
    products = [float((turn(q, n + 7, 200) * turn(k, n, 200)).sum()) for n in (0, 3, 90)]
    assert products == pytest.approx([products[0]] * 3, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_turning_keeps_lengths_up_to_the_gain(kind: str):
    x = torch.randn(1, 2, 9, 16, generator=torch.Generator().manual_seed(1))
    gain = KINDS[kind].gain
    turned = Rotary(KINDS[kind], 16).turn(x, 5, 14)
    assert torch.allclose(turned.norm(dim=-1), gain * x.norm(dim=-1), atol=1e-5)


def test_position_zero_is_left_as_it_is():
    x = torch.ones(1, 1, 1, 8)
    assert torch.equal(Rotary(Rope(), 8).turn(x, 0, 1), x)


def test_positions_can_be_asked_for_in_any_order():
    x = torch.ones(1, 1, 3, 8)
    used = Rotary(Rope(), 8)
    used.turn(x, 40, 43)
    assert torch.equal(used.turn(x, 2, 5), Rotary(Rope(), 8).turn(x, 2, 5))


def test_dynamic_and_longrope_depend_on_the_length():
    dynamic = Rope(kind="dynamic", factor=2.0, trained=16)
    assert torch.equal(frequencies(dynamic, 8, 4), frequencies(Rope(), 8, 4))
    assert float(frequencies(dynamic, 8, 32)[-1]) < float(frequencies(dynamic, 8, 17)[-1])
    long = Rope(kind="longrope", trained=16, short=(1.0,) * 4, long=(2.0,) * 4)
    assert torch.allclose(frequencies(long, 8, 16), frequencies(Rope(), 8, 1))
    assert torch.allclose(frequencies(long, 8, 17), frequencies(Rope(), 8, 1) / 2)


def test_angles_follow_the_length_where_they_depend_on_it():
    dynamic = Rope(kind="dynamic", factor=2.0, trained=16)
    x, used = torch.ones(1, 1, 2, 8), Rotary(dynamic, 8)
    for length in (10, 40, 12, 60):
        assert torch.equal(used.turn(x, 3, length), Rotary(dynamic, 8).turn(x, 3, length))


def test_blocks_share_angles():
    assert rotary(Rope(theta=3.0), 8) is rotary(Rope(theta=3.0), 8)
