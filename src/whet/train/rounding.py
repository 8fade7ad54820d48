"""Codes and scales that are trained: rounding is passed over on the way back (arXiv:1308.3432).

A weight is `scale · unit`. Units are latent numbers, rounded on the way forth; they may move to any
code (AutoRound, arXiv:2309.05516, trains where to round; EfficientQAT, arXiv:2407.11062, §3.2, the
weight itself). The scale's gradient is that of learned step sizes (LSQ, arXiv:1902.08153, §2.1) for
latents in units of the scale: ∂value/∂scale = unit. Scales are rounded to their stored type on the
way forth, so that what is trained is what will be read.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whet.formats.activate import quantized
from whet.formats.codec import Params
from whet.formats.codecs import codec_of
from whet.formats.grid import Grid
from whet.formats.scaled import Scaled
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.kernels.linear import reference
from whet.model.decoder import Model
from whet.model.linear import Linear
from whet.model.site import Site

NEAR = 0.49  # how far a latent may be from its outermost code: not to the border of rounding
STEADY = 10.0  # Adam's epsilon for latents: against gradients of unit mean square, its steps follow these


class Rounded(Linear):
    """A linear of codes whose scales, and on evenly spaced grids whose codes, are parameters.

    Latents start at their codes. Their gradients are brought to unit mean square, matrix by matrix,
    and with Adam's epsilon at `STEADY` a step is in proportion to them: a code changes where much is
    to be gained, and not, as with steps of equal size, wherever gradients agree for long enough.
    Law: before the first step it decodes to the weight that it was made from.
    Law: `coded` decodes to what it computes with, exactly.
    """

    def __init__(self, linear: Linear, *, frozen: bool = False) -> None:
        weight = linear.weight
        codec = codec_of(weight.format)
        assert isinstance(codec, Scaled)
        self.codec = codec
        values, params = codec.read(weight.planes, weight.shape)
        unit = codec.unit(values, params)
        params = replace(params, scale=params.scale.clone())  # one that gradients may pass
        plain = Weight(Plain("F32"), {"value": unit}, weight.shape)
        super().__init__(plain, linear.bias, linear.activation, linear.input_scale)
        self.coded_format, self.params = weight.format, params
        columns = torch.arange(weight.shape[1])
        self.columns = columns
        self.growth = nn.Parameter(torch.zeros_like(params.scale))  # log of scale ÷ first scale
        self.moves = isinstance(codec, Grid) and not frozen
        if isinstance(codec, Grid) and not frozen:
            self.latent = nn.Parameter(unit.clone())
            self.latent.register_hook(_even)
            self.low, self.high = _ends(codec, params, columns)

    @property
    def weight(self) -> Weight:
        """The weight as it is now, through which gradients flow."""
        return Weight(self.format, {"value": self.dense()}, self.shape)

    def dense(self) -> Float[Tensor, "out in"]:
        """Return the matrix as it is now."""
        return self._units() * self.codec.spread(self._scale(), self.columns)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Quantize the input if asked, passing gradients over that, then multiply."""
        if self.activation is not None:
            x = x + (quantized(x, self.activation, self.input_scale) - x).detach()
        y = reference(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def settle(self) -> None:
        """Keep latents where rounding still reaches an outermost code."""
        if self.moves:
            self.latent.clamp_(self.low - NEAR, self.high + NEAR)

    @torch.no_grad()
    def coded(self) -> Weight:
        """Return the weight in its format."""
        params: Params = replace(self.params, scale=self._scale())
        return Weight(self.coded_format, self.codec.write(self.dense(), params), self.shape)

    def _units(self) -> Float[Tensor, "out in"]:
        if not self.moves:
            return self.get_buffer("plane_value")
        nearest = self.latent.detach().round().clamp(self.low, self.high)
        return self.latent + (nearest - self.latent.detach())

    def _scale(self) -> Float[Tensor, "#out groups"]:
        scale = self.params.scale * self.growth.exp()
        return scale + (self.codec.stored(scale.detach(), self.params) - scale).detach()


def _even(gradient: Tensor) -> Tensor:
    """Return a gradient of unit mean square."""
    return gradient * torch.rsqrt(gradient.square().mean().clamp(min=1e-30))


def recoded(model: Model) -> Iterator[tuple[Site, Weight]]:
    """Yield the weights whose codes or scales were trained, in their formats."""
    for part in (model.embedding, *model.blocks, model.head):
        for site in part.sites:
            linear = part.linears[site.role]
            if isinstance(linear, Rounded) and site.tied is None:
                yield site, linear.coded()


def _ends(codec: Grid, params: Params, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest unit of each weight."""
    if params.zero is None:
        return torch.tensor(float(-codec.half)), torch.tensor(float(codec.half - 1))
    zero = codec.spread(params.zero, columns)
    return -zero, codec.last - zero
