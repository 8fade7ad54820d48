"""Codes and scales that are trained: rounding is passed over on the way back (arXiv:1308.3432).

A weight is `scale · unit`. Units are latent numbers, rounded on the way forth; they may move to any
code (AutoRound, arXiv:2309.05516, trains where to round; EfficientQAT, arXiv:2407.11062, §3.2, the
weight itself). The scale's gradient is that of learned step sizes (LSQ, arXiv:1902.08153, §2.1) for
latents in units of the scale: ∂value/∂scale = unit. Scales are rounded to their stored type on the
way forth, so that what is trained is what will be read.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whet.formats.codec import Params, Planes
from whet.formats.codecs import codec_of
from whet.formats.grid import Grid
from whet.formats.scaled import Scaled
from whet.formats.sparse import Sparse
from whet.formats.spec import Float as Plain
from whet.formats.spec import Format
from whet.formats.weight import Weight
from whet.model.linear import Linear
from whet.train.sharded import local, piece

NEAR = 0.49  # how far a latent may be from its outermost code: not to the border of rounding
FAR = 0.75  # steps of the grid between most codes and a matrix that is not the one they stand for
STEADY = 10.0  # Adam's epsilon for latents: against gradients of unit mean square, its steps follow these


class Rounded(Linear):
    """A linear of codes whose scales, and on evenly spaced grids whose codes, are parameters.

    Latents start at their codes, and `lean` tells which of these were close. With `even` their
    gradients are brought to unit mean square, matrix by matrix, and with Adam's epsilon at `STEADY` a
    step is in proportion to them: a code changes where much is to be gained, and not, as with steps
    of equal size, wherever gradients agree for long enough. That suits short descents.
    Of a sparse weight the codes that are kept are trained, and its mask stays.
    Law: before the first step it decodes to the weight that it was made from.
    Law: `coded` decodes to what it computes with, exactly.
    """

    kept: Tensor | None

    def __init__(self, linear: Linear, *, frozen: bool = False, even: bool = True) -> None:
        weight = linear.weight
        codec = scaled_of(weight.format)
        assert codec is not None
        planes, kept = _whole(weight)
        values, params = codec.read(planes, weight.shape)
        unit = codec.unit(values, params)
        params = replace(params, scale=params.scale.clone())  # one that gradients may pass
        moves = isinstance(codec, Grid) and not frozen
        plain = Weight(Plain("F32"), {} if moves else {"value": unit}, weight.shape)
        super().__init__(plain, linear.bias, linear.activation, linear.input_scale)
        self.codec, self.coded_format, self.params = codec, weight.format, params
        self.register_buffer("kept", kept)
        columns = torch.arange(weight.shape[1])
        self.columns = columns
        self.growth = nn.Parameter(torch.zeros_like(params.scale))  # log of scale ÷ first scale
        self.moves = moves
        if isinstance(codec, Grid) and moves:
            self.latent = nn.Parameter(unit.clone())
            if even:
                self.latent.register_hook(_even)
            self.low, self.high = _ends(codec, params, columns)

    @property
    def weight(self) -> Weight:
        """The weight as it is now, through which gradients flow."""
        return Weight(self.format, {"value": self.dense()}, self.shape)

    def dense(self) -> Float[Tensor, "out in"]:
        """Return the matrix as it is now."""
        values = self._values()
        return values if self.kept is None else values * self.kept

    @torch.no_grad()
    def lean(self, original: Float[Tensor, "out in"]) -> None:
        """Move latents, within their codes, towards the matrix that was rounded to them.

        So the codes change first that were all but chosen otherwise. A matrix that most codes lie
        far from is another one, and is not heeded.
        Law: no code changes.
        """
        if not self.moves:
            return
        away = original / self.codec.spread(self._scale(), self.columns) - self.latent
        if away.abs().median() <= FAR:
            self.latent += away.clamp(-NEAR, NEAR)
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Keep latents where rounding still reaches an outermost code."""
        if self.moves:
            ends = (self.low - NEAR, self.high + NEAR)
            low, high = (piece(end.expand(self.shape), self.latent) for end in ends)
            local(self.latent).clamp_(low, high)

    @torch.no_grad()
    def coded(self) -> Weight:
        """Return the weight in its format."""
        params: Params = replace(self.params, scale=self._scale())
        planes: Planes = self.codec.write(self._values(), params)
        if self.kept is not None:
            outer = codec_of(self.coded_format)
            assert isinstance(outer, Sparse)
            planes = outer.write(planes, self.kept)
        return Weight(self.coded_format, planes, self.shape)

    def _values(self) -> Float[Tensor, "out in"]:
        return self._units() * self.codec.spread(self._scale(), self.columns)

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


def scaled_of(format_: Format) -> Scaled | None:
    """Return what reads the codes of a format, or those that a sparse one keeps; None without any."""
    codec = codec_of(format_)
    inner = codec.inner if isinstance(codec, Sparse) else codec
    return inner if isinstance(inner, Scaled) else None


def _whole(weight: Weight) -> tuple[Planes, Tensor | None]:
    """Return the planes of codes for all of a matrix, and which are kept; None for all."""
    codec = codec_of(weight.format)
    return (
        codec.whole(weight.planes, weight.shape)
        if isinstance(codec, Sparse)
        else (weight.planes, None)
    )


def _ends(codec: Grid, params: Params, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest unit of each weight."""
    if params.zero is None:
        return torch.tensor(float(-codec.half)), torch.tensor(float(codec.half - 1))
    zero = codec.spread(params.zero, columns)
    return -zero, codec.last - zero
