"""Causal attention with grouped heads (arXiv:2305.13245), windows and soft caps."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from whet.model.architecture import Architecture
from whet.model.cache import visible
from whet.model.linear import Linear

Heads = Float[Tensor, "batch heads time dim"]


def projected(
    arch: Architecture, linears: Mapping[str, Linear], x: Float[Tensor, "batch time hidden"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, (batch, time, heads·dim) each, however they are stored."""
    if arch.qkv == "split":
        return linears["attn.q"](x), linears["attn.k"](x), linears["attn.v"](x)
    joined = linears["attn.qkv"](x)
    if arch.qkv == "joined":
        key = arch.kv_heads * arch.head_dim
        q, k, v = joined.split((arch.heads * arch.head_dim, key, key), -1)
        return q, k, v
    q, k, v = joined.unflatten(-1, (arch.heads, 3, arch.head_dim)).unbind(-2)
    return q.flatten(-2), k.flatten(-2), v.flatten(-2)


def separated(x: Float[Tensor, "batch time out"], dim: int) -> Heads:
    """Return heads of their own."""
    return x.unflatten(-1, (-1, dim)).transpose(1, 2)


def attend(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv past dim"],
    v: Float[Tensor, "batch kv past dim"],
    scale: float,
    window: int | None = None,
    cap: float | None = None,
) -> Float[Tensor, "batch time out"]:
    """Return the mixed values of each token; queries are those of the last tokens of `past`.

    With a cap c, logits are c·tanh(logits / c) (Gemma 2, arXiv:2408.00118, §2).
    """
    seen = visible(q.shape[2], k.shape[2], window, q.device)
    shared = q.shape[1] != k.shape[1]
    if cap is not None:
        whole = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
        mixed = weights(q, k, scale, window, cap) @ whole
    elif seen is not None and q.shape[2] == k.shape[2] and (window is None or q.shape[2] <= window):
        mixed = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=shared
        )
    else:
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=shared
        )
    return mixed.transpose(1, 2).flatten(2)


def weights(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv past dim"],
    scale: float,
    window: int | None = None,
    cap: float | None = None,
) -> Float[Tensor, "batch heads time past"]:
    """Return what share of each token's attention goes to each token.

    Law: `weights(q, k) @ v` is what `attend` mixes.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = q @ k.mT * scale if cap is None else cap * torch.tanh(q @ k.mT * (scale / cap))
    seen = visible(q.shape[2], k.shape[2], window, q.device)
    if seen is not None:
        logits = logits.masked_fill(~seen, -torch.inf)
    return logits.softmax(-1)
