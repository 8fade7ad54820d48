"""Moving a scale of channels from where they are made to where they are read, exactly.

Readers multiply by W·diag(s) what producers made as x/s, so the block computes the same. Used by
SmoothQuant (arXiv:2211.10438, eq. 3) and AWQ (arXiv:2306.00978, §3.2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.errors import NumericalError, UnsupportedError
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.model.block import Block
from whet.model.linear import Linear
from whet.model.norm import Norm


def foldable(block: Block, tap: str) -> str | None:
    """Return why the channels of a tap cannot be rescaled, or `None` if they can."""
    if tap not in block.taps:
        return f"this block has no tap {tap!r}"
    if tap == "attn.out":
        return None
    if tap.endswith(".mid"):
        return _middle(block)
    if ".experts." in tap:
        return "the experts of a block share one norm: fold mlp.in"
    return _normed(block, tap.removesuffix(".in"))


def _middle(block: Block) -> str | None:
    if block.arch.gated or block.arch.activation == "relu":
        return None
    return f"{block.arch.activation} of a scaled input is not the scaled output"


def _normed(block: Block, half: str) -> str | None:
    norm = block.norms.get(f"{half}.pre")
    if norm is None:
        return "no norm stands between the residual stream and the linears that read it"
    return "its norm has no gain" if norm.weight is None else None


def fold(block: Block, tap: str, scale: Float[Tensor, "in"]) -> Float[Tensor, "in"]:
    """Divide the channels of a tap by `scale` at their producer, and multiply at their readers.

    Returns the scale that was used. Gains, biases and routers keep the type they are stored
    in, so a scale is one that this type can hold (before experts, a power of two), and heads
    that share values share a scale. Only the bias of a layer norm is rounded anew.
    Law: the block computes the same function.
    """
    reason = foldable(block, tap)
    if reason:
        raise UnsupportedError(f"cannot rescale {tap} of block {block.layer}: {reason}")
    if not (torch.isfinite(scale).all() and (scale > 0).all()):
        raise NumericalError(
            f"the scale for {tap} of block {block.layer} is not positive and finite"
        )
    scale = scale.float()
    if tap == "mlp.in" and block.router is not None:
        scale = scale.log2().round().exp2()  # so that the router stays exact in its stored type
    if tap == "attn.out":
        used = _through_values(block, scale)
    elif tap.endswith(".mid"):
        used = _divide(*_up(block, tap.removesuffix(".mid")), scale)
    else:
        used = _divide_norm(block.norms[tap.replace(".in", ".pre")], scale)
    _multiply(block, tap, used)
    return used


def _through_values(block: Block, scale: Tensor) -> Tensor:
    """Divide values; heads that share them share the geometric mean of their scales."""
    arch = block.arch
    shared = scale.view(arch.kv_heads, arch.group, arch.head_dim).log().mean(1).exp()
    used = _divide(*_values(block), shared.flatten())
    heads = used.view(arch.kv_heads, 1, arch.head_dim)
    return heads.expand(-1, arch.group, -1).flatten()


def _values(block: Block) -> tuple[Linear, Tensor]:
    """Return the linear that makes values, and which of its rows do."""
    arch = block.arch
    if arch.qkv == "split":
        linear = block.linears["attn.v"]
        return linear, torch.arange(linear.shape[0])
    linear = block.linears["attn.qkv"]
    rows = torch.arange(linear.shape[0])
    if arch.qkv == "joined":
        return linear, rows[-arch.kv_heads * arch.head_dim :]
    return linear, rows.view(arch.heads, 3, arch.head_dim)[:, 2].flatten()


def _up(block: Block, role: str) -> tuple[Linear, Tensor]:
    """Return the linear that the middle of an MLP is proportional to, and which of its rows are."""
    joined = block.linears.get(f"{role}.gate_up")
    linear = joined or block.linears[f"{role}.up"]
    rows = torch.arange(linear.shape[0])
    return linear, rows[linear.shape[0] // 2 :] if joined else rows


def _divide(linear: Linear, rows: Tensor, scale: Tensor) -> Tensor:
    """Divide output channels; the scale used is one by which the stored bias divides exactly."""
    if linear.bias is not None:
        old = linear.bias[rows].float()
        new = (old / scale).to(linear.bias.dtype)
        scale = _ratio(old, new.float(), scale)
        linear.bias = linear.bias.index_copy(0, rows, (old / scale).to(linear.bias.dtype))
    factor = torch.ones(linear.shape[0]).index_copy(0, rows, 1 / scale)
    linear.replace(_plain(linear.weight.dense() * factor[:, None]))
    return scale


def _divide_norm(norm: Norm, scale: Tensor) -> Tensor:
    gain = norm.gain()
    assert gain is not None
    assert norm.weight is not None
    weight = (gain / scale - norm.kind.offset).to(norm.weight.dtype)
    new = weight.float() + norm.kind.offset
    used = _ratio(gain, new, torch.ones_like(scale))
    norm.weight = torch.where(_divides(gain, new), weight, norm.weight)
    if norm.bias is not None:
        norm.bias = (norm.bias.float() / used).to(norm.bias.dtype)
    return used


def _ratio(old: Tensor, new: Tensor, otherwise: Tensor) -> Tensor:
    """Return old / new, or `otherwise` where that is no scale."""
    return torch.where(_divides(old, new), old / new, otherwise)


def _divides(old: Tensor, new: Tensor) -> Tensor:
    """Return where rounding has left a number to divide by: not zero, not infinite."""
    return (new != 0) & (old != 0) & new.isfinite()


def _multiply(block: Block, tap: str, scale: Tensor) -> None:
    """Multiply the input columns of all that reads a tap."""
    for role in readers(block, tap):
        linear = block.linears[role]
        linear.replace(_plain(linear.weight.dense() * scale))
    if tap == "mlp.in" and block.router is not None:
        block.router = (block.router.float() * scale).to(block.router.dtype)


def readers(block: Block, tap: str) -> list[str]:
    """Return the roles of the linears that read a tap; those of all experts for "mlp.in"."""
    inside = tap == "mlp.in" and block.router is not None
    return [
        site.role
        for site in block.sites
        if site.tap == tap or (inside and ".experts." in site.tap and site.tap.endswith(".in"))
    ]


def _plain(dense: Tensor) -> Weight:
    rows, cols = dense.shape
    return Weight(Plain("F32"), {"value": dense}, (rows, cols))
