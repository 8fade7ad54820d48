"""Predicted KL divergence of rounding what lies outside the blocks: the embedding and the head.

A row of an embedding counts as often as its token occurs: its Fisher information is the sum of the
squared gradients at its output. Of a head the Fisher information is known without a backward pass:
E[g²] = p (1 − p) for an output of probability p.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.calibrate.backward import ROWS
from whet.calibrate.hidden_states import HiddenStates
from whet.calibrate.sensitivity import Sensitivity, rounding_loss
from whet.formats.spec import Format
from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder
from whet.model.family import find
from whet.model.source import Source


@torch.no_grad()
def outside_sensitivities(
    source: Source,
    ids: Int64[Tensor, "samples time"],
    entering: HiddenStates,
    leaving: HiddenStates,
    formats: Sequence[Format],
) -> Iterator[Sensitivity]:
    """Yield the sensitivities of the embedding and the head, by what a backward pass has left.

    `entering` are the gradients at the embedding's output, `leaving` the states that the head reads. A
    head that is tied counts with its embedding.
    """
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    embedding = decoder.embedding(source, family, arch)
    head = decoder.head(source, family, arch, embedding if arch.tied else None)
    table = embedding.linear.weight.dense()
    with arithmetic(usual(arch.hidden)):
        looked_up = _of_embedding(ids, entering, table, arch.embedding_scale, formats)
        multiplied = _of_head(head, leaving, formats)
    if arch.tied:
        looked_up = {f: kl + multiplied[f] for f, kl in looked_up.items()}
    else:
        yield Sensitivity(None, "head", multiplied)
    yield Sensitivity(None, "embed", looked_up)


def _of_embedding(
    ids: Tensor, entering: HiddenStates, table: Tensor, scale: float, formats: Sequence[Format]
) -> Mapping[Format, float]:
    """Return ½ Σ F ΔW² over the rows that the text looks up [nat per token]."""
    rows, place = ids.flatten().unique(return_inverse=True)
    fisher, done = torch.zeros(len(rows), table.shape[1]), 0
    for _, gradient in entering.chunks(1):
        squares = (scale * gradient.flatten(0, -2).float()).square_()
        fisher.index_add_(0, place[done : done + len(squares)], squares)
        done += len(squares)
    fisher /= len(place)
    return {f: rounding_loss(table[rows], fisher, f) for f in formats}


def _of_head(
    head: decoder.Head, leaving: HiddenStates, formats: Sequence[Format]
) -> Mapping[Format, float]:
    """Return ½ Σ F ΔW², an upper bound where logits are capped [nat per token]."""
    weight = head.linear.weight.dense()
    fisher: Float[Tensor, "vocab hidden"] = torch.zeros_like(weight)
    tokens = 0
    for _, hidden in leaving.chunks(1):
        for rows in hidden[0].split(ROWS):
            p = head(rows).softmax(-1)
            read = rows if head.norm is None else head.norm(rows)
            fisher.addmm_((p * (1 - p)).T, read.square())
            tokens += len(rows)
    fisher /= tokens
    return {f: rounding_loss(weight, fisher, f) for f in formats}
