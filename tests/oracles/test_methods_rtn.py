"""Rounding to nearest against loops over every level."""

import pytest
from tests.problems import layer

from whet.calibrate.statistics import Energy, Stats
from whet.formats.spec import parse
from whet.methods.quantize.rtn import Rtn

GROUP = 16


@pytest.mark.parametrize("name", ["int4-g16-f32", "int2-g16-f32", "int3-g16-affine-f32"])
def test_minmax_is_the_textbook(name: str) -> None:
    weight = layer(seed=4)[0]
    bits = int(name[3])
    ours = Rtn(format=parse(name), range="minmax").rewrite(weight, Stats((), 32), "mlp.up", 0)
    found = ours.weight.dense()
    for row in range(len(weight)):
        for start in range(0, 32, GROUP):
            group = weight[row, start : start + GROUP].double()
            low, high = min(float(group.min()), 0.0), max(float(group.max()), 0.0)
            if "affine" in name:
                scale = (high - low) / (2**bits - 1)
                zero = round(-low / scale)
                values = [scale * (code - zero) for code in range(2**bits)]
            else:
                widest = high if high > -low else low
                scale = -widest / 2 ** (bits - 1)
                values = [scale * code for code in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]
            for j, w in enumerate(group.tolist()):
                nearest = min(values, key=lambda value: abs(value - w))
                assert float(found[row, start + j]) == pytest.approx(nearest, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["int3-g16-f32", "nf4-g16-f32", "int2-g16-affine-f32"])
def test_a_searched_range_is_at_most_as_bad_as_every_simple_one(name: str) -> None:
    weight, x, _, _ = layer(seed=5)
    stats = Stats((Energy,), 32)
    stats.add(x)
    importance = x.double().square().mean(0)
    lost = {}
    for rule in ("minmax", "percentile", "mse", "hessian"):
        done = Rtn(format=parse(name), range=rule, range_steps=60).rewrite(weight, stats, "up", 0)
        error = (done.weight.dense() - weight).double().square()
        lost[rule] = (float(error.sum()), float((error * importance).sum()))
    assert lost["mse"][0] <= min(plain for plain, _ in lost.values()) * (1 + 1e-6)
    assert lost["hessian"][1] <= min(weighted for _, weighted in lost.values()) * (1 + 1e-6)


def test_the_weight_error_is_that_of_the_weights() -> None:
    weight = layer(seed=6)[0]
    done = Rtn().rewrite(weight, Stats((), 32), "mlp.up", 0)
    lost = sum(float(d) ** 2 for d in (done.weight.dense() - weight).flatten())
    whole = sum(float(w) ** 2 for w in weight.flatten())
    assert done.facts["weight_error"].value == pytest.approx(lost / whole, rel=1e-5)
