"""The feed-forward half of a block: plain, gated (arXiv:2002.05202), or a mixture of experts."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from whet.model.architecture import Architecture, Experts, Nonlinearity
from whet.model.linear import Linear

Tap = Callable[[str, Tensor], None]

NONLINEARITIES: dict[Nonlinearity, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


def activated(
    arch: Architecture, linears: Mapping[str, Linear], role: str, x: Float[Tensor, "*batch hidden"]
) -> Float[Tensor, "*batch ffn"]:
    """Return what the last linear of the MLP whose linears' roles start with `role` reads."""
    act = NONLINEARITIES[arch.activation]
    if not arch.gated:
        return act(linears[f"{role}.up"](x))
    if f"{role}.gate_up" in linears:
        gate, up = linears[f"{role}.gate_up"](x).chunk(2, -1)
        return act(gate) * up
    gate, up = act(linears[f"{role}.gate"](x)), linears[f"{role}.up"](x)
    return gate * up if gate.requires_grad or up.requires_grad else gate.mul_(up)


def feed_forward(
    arch: Architecture,
    linears: Mapping[str, Linear],
    role: str,
    x: Float[Tensor, "*batch hidden"],
    tap: Tap,
) -> Float[Tensor, "*batch hidden"]:
    """Return the output of the MLP whose linears' roles start with `role`."""
    tap(f"{role}.in", x)
    middle = activated(arch, linears, role, x)
    tap(f"{role}.mid", middle)
    return linears[f"{role}.down"](middle)


def routes(
    experts: Experts, router: Float[Tensor, "expert hidden"], x: Float[Tensor, "tokens hidden"]
) -> Iterator[tuple[int, Int64[Tensor, "chosen"], Float[Tensor, "chosen"]]]:
    """Yield each expert that some token chose, with those tokens and its share in them."""
    shares, chosen = functional.linear(x, router.to(x.dtype)).softmax(-1).topk(experts.active, -1)
    if experts.normalize:
        shares = shares / shares.sum(-1, keepdim=True)
    for expert in chosen.unique().tolist():
        tokens, rank = torch.where(chosen == expert)
        yield expert, tokens, shares[tokens, rank]


def mixture(
    arch: Architecture,
    linears: Mapping[str, Linear],
    router: Float[Tensor, "expert hidden"],
    x: Float[Tensor, "batch time hidden"],
    tap: Tap,
) -> Float[Tensor, "batch time hidden"]:
    """Return the sum of each token's active experts; an expert runs on its own tokens only.

    Source: arXiv:2401.04088, §2.1.
    """
    assert arch.experts is not None
    flat = x.flatten(0, 1)
    total = torch.zeros_like(flat)
    for expert, tokens, share in routes(arch.experts, router, flat):
        out = feed_forward(arch, linears, f"mlp.experts.{expert}", flat[tokens], tap)
        total.index_add_(0, tokens, out * share[:, None])
    return total.view_as(x)
