"""Plain floating-point matrices."""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.errors import FormatError
from whet.formats import spec
from whet.formats.codec import Codec, Planes, require_finite
from whet.formats.spec import Shape

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Dense(Codec):
    """One plane `value`, row-major, rounded to the nearest number of its type."""

    def __init__(self, format_: spec.Float) -> None:
        self.format = format_
        self.dtype = DTYPES[format_.dtype]

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Round to the type; numbers beyond its range are refused."""
        require_finite(weight)
        value = weight.to(self.dtype).contiguous()
        if not value.isfinite().all():
            row, column = (~value.isfinite()).nonzero()[0].tolist()
            raise FormatError(
                f"{float(weight[row, column]):.4g} at row {row}, column {column} is beyond "
                f"{self.format}, which ends at {torch.finfo(self.dtype).max:.5g}",
                "write this weight as bf16 or f32",
            )
        return {"value": value}

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Widen to float32."""
        return planes["value"].reshape(shape).float()

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows."""
        return {"value": planes["value"].reshape(shape)[start:stop]}
