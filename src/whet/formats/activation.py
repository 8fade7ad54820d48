"""How the input of a linear is quantized: a value with a text name. Needs no torch.

    int8-token             symmetric, a scale for each token, computed when it runs (dynamic)
    int8-token-affine      with a zero point
    int8-tensor-static     one scale, fixed by calibration
    int8-g128              a scale for each token and each 128 channels, dynamic
    int4-token, fp8-e4m3-token, fp8-e4m3-tensor-static

Law: `parse_activation(str(a)) == a`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Activation:
    """An element type and what shares a scale."""

    element: Literal["int4", "int8", "fp8-e4m3"] = "int8"
    strategy: Literal["token", "tensor", "group"] = "token"
    group: int = 0
    affine: bool = False
    static: bool = False
