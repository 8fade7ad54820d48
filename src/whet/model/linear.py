"""A linear layer whose weight is in any format."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from whet.formats.activate import quantized
from whet.formats.activation import Activation
from whet.formats.weight import Weight
from whet.kernels.linear import decoded, reference
from whet.kernels.rounded import rounded


class Linear(nn.Module):
    """y = W x + b; the planes of W are buffers and are decoded at use.

    `activation`: how the input is quantized first, if at all; `input_scale` its scale, where fixed.
    """

    bias: Tensor | None
    input_scale: Tensor | None

    def __init__(
        self,
        weight: Weight,
        bias: Float[Tensor, "out"] | None = None,
        activation: Activation | None = None,
        input_scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.register_buffer("bias", bias)
        self.register_buffer("input_scale", input_scale)
        self._planes: tuple[str, ...] = ()
        self._holds = False  # whether the weight stays decoded once it was used
        self._rounds = False  # whether it may then be rounded to 8 bits, and its input too
        self._decoded: Tensor | None = None
        self._product: Callable[[Tensor], Tensor] | None = None
        self.replace(weight)

    def replace(self, weight: Weight) -> None:
        """Take another weight."""
        for name in self._planes:
            delattr(self, _buffer(name))
        for name, plane in weight.planes.items():
            self.register_buffer(_buffer(name), plane)
        self._decoded = self._product = None
        self._planes, self.format, self.shape = tuple(weight.planes), weight.format, weight.shape

    @property
    def weight(self) -> Weight:
        """The weight as a value."""
        planes = {name: self.get_buffer(_buffer(name)) for name in self._planes}
        return Weight(self.format, planes, self.shape)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Quantize the input if asked, passing gradients over that, then multiply."""
        if self.activation is not None:
            codes = quantized(x.detach(), self.activation, self.input_scale)
            x = x + (codes - x.detach()) if x.requires_grad else codes
        y = self._multiplied(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def hold(self, *, holds: bool, rounds: bool = False) -> None:
        """Keep the weight decoded from its first use on, or no longer."""
        self._holds, self._rounds = holds, rounds
        self._decoded = self._product = None

    def _multiplied(self, x: Tensor) -> Tensor:
        if self._holds and self._decoded is None and self._product is None:
            self._product = rounded(self.weight) if self._rounds else None
            self._decoded = decoded(self.weight) if self._product is None else None
        if self._product is not None:
            return self._product(x)
        if self._decoded is None:
            return reference(x, self.weight)
        return functional.linear(x.to(self._decoded.dtype), self._decoded).to(x.dtype)


@contextmanager
def held(linears: Iterable[Linear], *, rounds: bool = False) -> Generator[None]:
    """Decode small weights once, while many samples pass. Law: the outputs are the same.

    With `rounds` plain weights and their inputs may be rounded to 8 bits, where that is quicker and
    the arithmetic allows it.
    """
    every = list(linears)
    for linear in every:
        linear.hold(holds=True, rounds=rounds)
    try:
        yield
    finally:
        for linear in every:
            linear.hold(holds=False)


def _buffer(plane: str) -> str:
    """Return the name of the buffer that holds a plane; torch allows no dots in it."""
    return f"plane_{plane.replace('.', '_')}"
