"""Keep the weights that move the output most: magnitude times the size of the input.

Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models"
(arXiv:2306.11695, §3): |W_ij|·‖x_j‖, compared within each output, which row patterns do by themselves.
With `refit` the kept weights then become those of least output error (ALPS, arXiv:2406.07831, §3).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.methods.solve.pruning import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanda(Scored):
    """Keep the weights of greatest magnitude times input size; no weight is changed, unless refitted."""

    name: ClassVar[str] = "wanda"

    def scores(
        self, weight: Float[Tensor, "out in"], square: Float[Tensor, "in"]
    ) -> Float[Tensor, "out in"]:
        """Return magnitudes times the sizes of the inputs."""
        return weight.abs() * square.sqrt()
