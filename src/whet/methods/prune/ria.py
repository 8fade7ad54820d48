"""Keep the weights that matter most to their row, to their column and to the output.

Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning Method for
Large Language Models" (ICLR 2024), relative importance and activations:

    (|W_ij| / Σ_j |W_ij| + |W_ij| / Σ_i |W_ij|) · ‖x_j‖^power

With `refit` the kept weights then become those of least output error (ALPS, arXiv:2406.07831, §3).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.methods.solve.checks import within
from whet.methods.solve.pruning import Scored
from whet.passes.linear_pass import says

TINY = 1e-30  # below every sum that is not zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Ria(Scored):
    """Keep the weights of greatest share in row and column, times input size to a power."""

    name: ClassVar[str] = "ria"
    power: float = field(default=0.5, metadata=says("exponent of the size of the inputs [1]"))

    def check(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        Scored.check(self)
        within(self, least={"power": 0})

    def scores(
        self, weight: Float[Tensor, "out in"], square: Float[Tensor, "in"]
    ) -> Float[Tensor, "out in"]:
        """Return the relative importance of each weight."""
        return importance(weight, square, self.power)


def importance(
    weight: Float[Tensor, "out in"], square: Float[Tensor, "in"], power: float
) -> Float[Tensor, "out in"]:
    """Return the relative importance of each weight, times its input's size to a power."""
    size = weight.abs()
    rows, columns = size.sum(1, keepdim=True), size.sum(0, keepdim=True)
    share = size / rows.clamp(min=TINY) + size / columns.clamp(min=TINY)
    return share * square.sqrt() ** power
