"""GPTQ-complete against the textbook: explicit inverses, naive loops, float64."""

import pytest
import torch
from tests.problems import gathered, layer, textbook_shares
from torch import Tensor

from whet.calibrate.statistics import Cross, Gram, Residual
from whet.formats.codec import Search
from whet.formats.codecs import codec_of
from whet.formats.spec import parse
from whet.methods.quantize.gptq import Gptq

GROUP, INPUTS, OUT = 16, 32, 12


def level(value: float, bits: int, zero: float | None) -> float:
    """Return the nearest integer that a code can stand for."""
    low = -(2.0 ** (bits - 1)) if zero is None else -zero
    return min(max(float(torch.tensor(value).round()), low), low + 2**bits - 1)


def textbook_gptq(T: Tensor, H: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
    """Round the input of greatest H_jj left, correct the others, take it out of the inverse."""
    W, Q = T.clone(), torch.zeros_like(T)
    left = list(range(len(H)))
    for j in sorted(left, key=lambda j: (-float(H[j, j]), -j)):
        inverse = torch.linalg.inv(H[left][:, left])
        place = left.index(j)
        for row in range(len(W)):
            s = float(scale[row, j // GROUP])
            z = None if zero is None else float(zero[row, j // GROUP])
            Q[row, j] = s * level(float(W[row, j]) / s, bits, z)
            error = (W[row, j] - Q[row, j]) / inverse[place, place]
            W[row, left] -= error * inverse[place]
        left.remove(j)
    return Q


def textbook_loss(Q: Tensor, T: Tensor, H: Tensor) -> float:
    return float((Q - T) @ H @ (Q - T))


def textbook_sweep(q: Tensor, t: Tensor, H: Tensor, s: Tensor, z: Tensor | None, bits: int) -> None:
    """Try every code of every input of one output, and keep the best; in place."""
    for j in range(len(q)):
        place = j // GROUP
        low = -(2 ** (bits - 1)) if z is None else -int(z[place])
        trials = []
        for code in range(low, low + 2**bits):
            trial = q.clone()
            trial[j] = float(s[place]) * code
            trials.append((textbook_loss(trial, t, H), code))
        q[j] = float(s[place]) * min(trials)[1]


def textbook_settle(
    q: Tensor, t: Tensor, H: Tensor, s: Tensor, z: Tensor | None, bits: int
) -> None:
    """Fit each scale by least squares, then move each zero point by one, if that helps."""
    for place in range(len(s)):
        own = torch.arange(place * GROUP, (place + 1) * GROUP)
        u = torch.zeros_like(q)
        u[own] = (q[own] / s[place]).round()
        best = s[place] - float(u @ H @ (q - t)) / float(u @ H @ u)
        trial = q.clone()
        trial[own] = best.bfloat16().double() * u[own]
        if textbook_loss(trial, t, H) < textbook_loss(q, t, H):
            q[own], s[place] = trial[own], best.bfloat16().double()
        if z is None:
            continue
        moves = []
        for shift in (-1, 1):
            if 0 <= float(z[place]) + shift < 2**bits:
                trial = q.clone()
                trial[own] -= shift * s[place]
                moves.append((textbook_loss(trial, t, H), shift))
        if moves and min(moves)[0] < textbook_loss(q, t, H):
            q[own] -= min(moves)[1] * s[place]
            z[place] += min(moves)[1]


@pytest.mark.parametrize("name", ["int4-g16", "int3-g16-affine", "int2-g16-affine"])
@pytest.mark.parametrize("sweeps", [0, 1, 3])
def test_gptq_is_the_textbook(name: str, sweeps: int) -> None:
    weight, x, ideal, drift = layer(OUT, INPUTS, seed=1)
    stats = gathered(x, ideal, drift)
    method = Gptq(format=parse(name), sweeps=sweeps, alpha=0.5, rho=0.75)
    ours = method.rewrite(weight, stats, "mlp.up", 0).weight.dense()

    H, C, R = (stats[kind].mean().double() for kind in (Gram, Cross, Residual))
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(INPUTS)
    W = weight.double()
    inverse = torch.linalg.inv(damped)
    shares = textbook_shares(ideal, drift, x, inverse / len(x))
    T = W + (0.5 * shares[0] * W @ C + 0.75 * shares[1][:, None] * R) @ inverse
    params = codec_of(parse(name)).fit(T.float(), Search("hessian", 20), damped.diagonal().float())
    scale = params.scale.double()
    zero = None if params.zero is None else params.zero.double()
    bits = int(name[3])
    Q = textbook_gptq(T, damped, scale, zero, bits)
    for row in range(OUT):
        z = None if zero is None else zero[row]
        nearest = torch.tensor(
            [
                float(scale[row, j // GROUP])
                * level(
                    float(T[row, j] / scale[row, j // GROUP]),
                    bits,
                    None if z is None else float(z[j // GROUP]),
                )
                for j in range(INPUTS)
            ],
            dtype=torch.float64,
        )
        if textbook_loss(nearest, T[row], damped) < textbook_loss(Q[row], T[row], damped):
            Q[row] = nearest
        for left in reversed(range(sweeps)):
            textbook_sweep(Q[row], T[row], damped, scale[row], z, bits)
            if left:
                textbook_settle(Q[row], T[row], damped, scale[row], z, bits)
    torch.testing.assert_close(ours.double(), Q, rtol=1e-5, atol=1e-6)


def test_the_output_error_is_that_of_the_tokens() -> None:
    weight, x, ideal, drift = layer(OUT, INPUTS, seed=2)
    done = Gptq(format=parse("int3-g16"), alpha=0.0, alpha_down=0.0, rho=0.0).rewrite(
        weight, gathered(x, ideal, drift), "mlp.up", 0
    )
    lost = (x.double() @ (done.weight.dense() - weight).double().T).square().sum()
    whole = (x.double() @ weight.double().T).square().sum()
    assert done.facts["output_error"].value == pytest.approx(float(lost / whole), rel=1e-3)
    assert done.facts["target_shift"].value == 0.0
