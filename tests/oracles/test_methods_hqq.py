"""HQQ against naive loops in float64."""

import pytest
import torch
from tests.problems import layer

from whet.calibrate.statistics import Stats
from whet.formats.codec import Search
from whet.formats.codecs import codec_of
from whet.formats.spec import parse
from whet.methods.quantize.hqq import Hqq

GROUP = 16


def nearest(w: float, scale: float, zero: float | None, bits: int) -> float:
    low = -(2 ** (bits - 1)) if zero is None else -zero
    return scale * min(max(float(torch.tensor(w / scale).round()), low), low + 2**bits - 1)


def textbook(
    group: list[float], scale: float, zero: float | None, bits: int, size: float
) -> list[float]:
    """Return the values of the best of twenty turns of the half-quadratic scheme."""
    power, beta = 0.7, 10.0 / size ** (2 - 0.7)
    values = [nearest(w, scale, zero, bits) for w in group]
    best = (sum(abs(w - q) ** power for w, q in zip(group, values, strict=True)), values)
    for _ in range(20):
        wanted = []
        for w, q in zip(group, values, strict=True):
            error = w - q
            kept = max(abs(error) - max(abs(error), 1e-8) ** (power - 1) / beta, 0.0)
            wanted.append(w - (kept if error > 0 else -kept))
        units = [round(q / scale) for q in values]
        square = sum(u * u for u in units)
        if square:
            fitted = sum(u * w for u, w in zip(units, wanted, strict=True)) / square
            scale = float(torch.tensor(fitted).float()) or scale
        if zero is not None:
            shift = sum(u - w / scale for u, w in zip(units, wanted, strict=True)) / len(units)
            zero = min(max(float(torch.tensor(zero + shift).round()), 0.0), 2.0**bits - 1)
        values = [nearest(w, scale, zero, bits) for w in group]
        lost = sum(abs(w - q) ** power for w, q in zip(group, values, strict=True))
        best = min(best, (lost, values), key=lambda one: one[0])
        beta *= 1.01
    return best[1]


@pytest.mark.parametrize("name", ["int4-g16-affine-f32", "int3-g16-f32", "int2-g16-affine-f32"])
def test_hqq_is_the_textbook(name: str) -> None:
    weight = layer(out=6, seed=7)[0]
    ours = Hqq(format=parse(name)).rewrite(weight, Stats((), 32), "mlp.up", 0).weight.dense()
    params = codec_of(parse(name)).fit(weight, Search("minmax"))
    size = float(weight.abs().mean())
    for row in range(len(weight)):
        for place in range(2):
            own = slice(place * GROUP, (place + 1) * GROUP)
            zero = None if params.zero is None else float(params.zero[row, place])
            scale, group = float(params.scale[row, place]), weight[row, own].tolist()
            expected = torch.tensor(textbook(group, scale, zero, int(name[3]), size))
            torch.testing.assert_close(ours[row, own], expected, rtol=1e-4, atol=1e-6)
