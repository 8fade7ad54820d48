"""Keys and values rounded to what they are kept in (`whet.formats.keeping`)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from whet.formats.keeping import BITS, GROUP, Keeping, padded

DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "kv4": torch.bfloat16,
    "kv2": torch.bfloat16,
}
Heads = Float[Tensor, "batch kv time dim"]


def token_by_token(x: Heads, keeping: Keeping) -> Heads:
    """Return keys or values as a page keeps them that is not full yet."""
    if keeping == "int8":
        return _int8(x)
    return x.to(DTYPES[keeping]).to(x.dtype)


def full_keys(keys: Heads, keeping: Keeping) -> Heads:
    """Return the keys of a full page as kv4 or kv2 keep them: coded by channel."""
    return _coded(keys.mT, BITS[keeping]).mT


def full_values(values: Heads, keeping: Keeping) -> Heads:
    """Return the values of a full page as kv4 or kv2 keep them: coded by token and 32 channels."""
    dim = values.shape[-1]
    filled = functional.pad(values, (0, padded(dim) - dim))
    groups = filled.split(GROUP, -1)
    return torch.cat([_coded(group, BITS[keeping]) for group in groups], -1)[..., :dim]


def _int8(x: Heads) -> Heads:
    """Return codes from -127 to 127 times the scale of each token of a head."""
    top = x.abs().amax(-1, keepdim=True)
    inverse = torch.where(top > 0, 127 / top, 0.0)
    return (x * inverse).round() * (top / 127)


def _coded(x: Float[Tensor, "*rows numbers"], bits: int) -> Float[Tensor, "*rows numbers"]:
    """Return unsigned codes between the least and the largest of each row, as numbers again.

    What codes are multiplied by and added to is rounded to bf16 first.
    """
    top = 2**bits - 1
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = ((high - low) / top).bfloat16().to(x.dtype)
    least = low.bfloat16().to(x.dtype)
    ratio = torch.where(scale > 0, (x - least) / scale, 0.0)
    return ratio.clamp(0, top).round() * scale + least
