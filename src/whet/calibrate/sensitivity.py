"""Predict the KL divergence that rounding a linear causes, from one backward pass over a little text.

With gradients g of the log-likelihood and inputs x of a linear, a change ΔW of its weight causes
½ E[(gᵀ ΔW x)²] to second order. Rounding errors of different weights are taken as uncorrelated,
which leaves the diagonal of the Fisher information: ½ Σ ΔW²ᵢⱼ E[g²ᵢ x²ⱼ]. So one product of matrices
a linear serves all formats.

GPTQ does better than rounding to nearest by a factor that is known without running it: its error is
that of the pivots dⱼ of H = L D Lᵀ in place of the diagonal of H (QuIP, arXiv:2307.13304, theorem 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whet.calibrate.backward import BlockGradients
from whet.formats.codecs import codec_of
from whet.formats.element import Integer
from whet.formats.spec import Coded, Format

DAMPING = 0.1  # ridge ÷ mean of H's diagonal: few tokens are seen, so small pivots are noise


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Predicted KL divergence [nat per token] of each format of a linear, all others left alone.

    `layer` is None for the embedding and the head.
    """

    layer: int | None
    role: str
    kl: Mapping[Format, float]


def block_sensitivities(
    found: BlockGradients, formats: Sequence[Format], tokens: int
) -> Iterator[Sensitivity]:
    """Yield the sensitivities of a block's linears, of which a backward pass has seen some tokens."""
    last, factor = torch.empty(0), 1.0
    for role, g in found.gradients.items():
        read, weight = found.inputs[role], found.block.linears[role].weight.dense()
        x = read.float()
        if not (last.shape == read.shape and last.equal(read)):
            last, factor = read, gptq_factor(x)
        fisher = g.float().square().T @ x.square() / tokens
        kl = {f: factor * rounding_loss(weight, fisher, f) for f in formats}
        yield Sensitivity(found.layer, role, kl)


def rounding_loss(
    weight: Float[Tensor, "out in"], fisher: Float[Tensor, "out in"], format_: Format
) -> float:
    """Return ½ Σ F ΔW² of rounding to nearest [nat per token], F being the Fisher information's diagonal.

    Integers in groups have an error of step²/12; other formats are rounded, those with minima among
    them, since what other programs have quantized often lies on a grid of that kind.
    Law: close to the loss of rounding, for weights without a grid of their own.
    """
    inputs = weight.shape[1]
    if isinstance(format_, Coded) and isinstance(format_.element, Integer):
        size = format_.group(inputs)
        if inputs % size == 0 and format_.grouping != "tensor" and not format_.minimum:
            return _uniform_noise(weight, fisher, format_, size)
    codec = codec_of(format_)
    rounded = codec.decode(codec.encode(weight), (weight.shape[0], inputs))
    return float((rounded - weight).square_().mul_(fisher).sum(dtype=torch.float64)) / 2


def _uniform_noise(weight: Tensor, fisher: Tensor, format_: Coded, size: int) -> float:
    """Return ½ Σ F step²/12, the step being the range of a group ÷ the number of its intervals."""
    low, high = weight.reshape(len(weight), -1, size).aminmax(dim=-1)
    width = high - low if format_.affine else 2 * torch.maximum(high, -low)
    step = width / (2**format_.element.bits - 1)
    weighted = fisher.reshape(len(fisher), -1, size).sum(-1) * step.square()
    return float(weighted.sum(dtype=torch.float64)) / 24


def gptq_factor(x: Float[Tensor, "tokens in"]) -> float:
    """Return the error of GPTQ ÷ that of rounding to nearest [1]: Σ pivots ÷ trace of H.

    Law: 1 for uncorrelated inputs, less for correlated ones.
    """
    if not len(x):
        return 1.0
    gram = x.T @ x / len(x)
    ridge = DAMPING * gram.diagonal().mean()
    gram.diagonal().add_(ridge)
    order = gram.diagonal().argsort(descending=True)
    factor, info = torch.linalg.cholesky_ex(gram[order.flip(0)][:, order.flip(0)])
    if info.any():
        return 1.0
    return float((factor.diagonal().square().sum() / gram.diagonal().sum()).clamp(max=1))
