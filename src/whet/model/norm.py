"""Normalisation of the residual stream and of queries and keys."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from whet.model.architecture import Norm as Kind


class Norm(nn.Module):
    """Root-mean-square norm (arXiv:1910.07467) or layer norm (arXiv:1607.06450)."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, kind: Kind, weight: Tensor | None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def gain(self) -> Float[Tensor, "hidden"] | None:
        """Return what normalised channels are multiplied by, in float32."""
        return None if self.weight is None else self.weight.float() + self.kind.offset

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Normalise the last axis."""
        gain = self.gain()
        if self.kind.kind == "layer":
            bias = None if self.bias is None else self.bias.float()
            return functional.layer_norm(x, x.shape[-1:], gain, bias, self.kind.eps)
        assert gain is not None
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.kind.eps)
        trained = y.requires_grad or gain.requires_grad
        return y * gain if trained or y.dtype != gain.dtype else y.mul_(gain)
