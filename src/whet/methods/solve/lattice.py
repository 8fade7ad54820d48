"""What a number format can write, input by input: the parameters of a codec, transposed."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats.codec import Params, Scalar
from whet.formats.scaled import Scaled


@runtime_checkable
class Members(Protocol):
    """Anything that knows the nearest representable values of one input."""

    def nearest(self, wanted: Float[Tensor, "out"], column: int) -> Float[Tensor, "out"]:
        """Return the nearest representable values of one input."""
        ...

    def snapped(self, target: Float[Tensor, "in out"]) -> Float[Tensor, "in out"]:
        """Return the nearest representable values of all inputs: rounding to nearest."""
        ...


class Joint:
    """The representable values of a format through its codec alone: slower, but of any kind."""

    def __init__(self, codec: Scalar, params: Params) -> None:
        self.codec, self.params = codec, params

    def nearest(self, wanted: Float[Tensor, "out"], column: int) -> Float[Tensor, "out"]:
        """Return the nearest representable values of one input."""
        found = self.codec.snap(wanted[:, None].float(), self.params, torch.tensor([column]))
        return found[:, 0].to(wanted.dtype)

    def snapped(self, target: Float[Tensor, "in out"]) -> Float[Tensor, "in out"]:
        """Return the nearest representable values of all inputs: rounding to nearest."""
        columns = torch.arange(len(target))
        found = self.codec.snap(target.T.contiguous().float(), self.params, columns)
        return found.T.contiguous().to(target.dtype)


class Lattice:
    """The representable values of each group of inputs, for all outputs at once.

    `scale` and `zero` are [groups out], one column each where the whole matrix shares them, and may
    be changed: scales to what `stored` returns, zero points within 0 and `top`.
    """

    def __init__(self, codec: Scaled, params: Params, inputs: int) -> None:
        self.codec, self.given = codec, params
        self.group = max(codec.coded.group(inputs), 1)
        self.shared = codec.coded.grouping == "tensor"
        self.scale = params.scale.T.contiguous()
        self.zero = None if params.zero is None else params.zero.T.contiguous()
        self.levels = params.levels
        self.top = 2**codec.bits - 1
        self.moves_zero = self.zero is not None  # zero points may be changed

    def nearest(self, wanted: Float[Tensor, "out"], column: int) -> Float[Tensor, "out"]:
        """Return the nearest representable values of one input."""
        place = column // self.group
        scale = self.scale[place]
        zero = None if self.zero is None else self.zero[place]
        ratio = (wanted / scale).float()
        if self.levels is not None and len(self.levels) > 1:  # a table for each output
            unit = self.codec.near(ratio[:, None], zero, self.levels)[:, 0]
        else:
            unit = self.codec.near(ratio, zero, self.levels)
        return unit.mul_(scale).to(wanted.dtype)

    def snapped(self, target: Float[Tensor, "in out"]) -> Float[Tensor, "in out"]:
        """Return the nearest representable values of all inputs: rounding to nearest."""
        columns = torch.arange(len(target))
        snapped = self.codec.snap(target.T.contiguous(), self.params(), columns)
        return snapped.T.contiguous().to(target.dtype)

    def spread(self, of_groups: Float[Tensor, "groups #out"], inputs: int) -> Tensor:
        """Return for each input the parameter of its group."""
        return of_groups[torch.arange(inputs) // self.group]

    def unit(self, values: Float[Tensor, "cols out"], place: int) -> Float[Tensor, "cols out"]:
        """Return representable values of one group without their scale."""
        zero = None if self.zero is None else self.zero[place]
        ratio = (values / self.scale[place]).float()
        if self.levels is None or len(self.levels) == 1:
            return self.codec.near(ratio, zero, self.levels).to(values.dtype)
        return self.codec.near(ratio.T.contiguous(), zero, self.levels).T.to(values.dtype)

    def stored(self, scale: Float[Tensor, "#out"]) -> Float[Tensor, "#out"]:
        """Round the scales of one group to the type they are stored in."""
        return self.codec.stored(scale[:, None], self.given)[:, 0].to(scale.dtype)

    def pooled(self, of_outputs: Float[Tensor, "out"]) -> Float[Tensor, "#out"]:
        """Return a sum over inputs as it stands, or over outputs too where these share a scale."""
        return of_outputs.sum(0, keepdim=True) if self.shared else of_outputs

    def params(self) -> Params:
        """Return the parameters as they are now."""
        zero = None if self.zero is None else self.zero.T.contiguous()
        return replace(self.given, scale=self.scale.T.contiguous(), zero=zero, levels=self.levels)


class Masked(Lattice):
    """A lattice of which some inputs of each output are zero, and stay so; zero points stay, too."""

    def __init__(
        self, codec: Scaled, params: Params, inputs: int, mask: Float[Tensor, "in out"]
    ) -> None:
        super().__init__(codec, params, inputs)
        self.mask, self.moves_zero = mask, False

    def nearest(self, wanted: Float[Tensor, "out"], column: int) -> Float[Tensor, "out"]:
        """Return the nearest representable values of one input, zero where it is not kept."""
        return super().nearest(wanted, column).mul_(self.mask[column])

    def snapped(self, target: Float[Tensor, "in out"]) -> Float[Tensor, "in out"]:
        """Return the nearest representable values of all inputs, zero where they are not kept."""
        return super().snapped(target).mul_(self.mask)


class Kept:
    """Plain numbers, of which some inputs of each output are zero."""

    def __init__(self, mask: Float[Tensor, "in out"]) -> None:
        self.mask = mask

    def nearest(self, wanted: Float[Tensor, "out"], column: int) -> Float[Tensor, "out"]:
        """Return the numbers themselves, zero where the input is not kept."""
        return wanted * self.mask[column]

    def snapped(self, target: Float[Tensor, "in out"]) -> Float[Tensor, "in out"]:
        """Return the numbers themselves, zero where the inputs are not kept."""
        return target * self.mask
