"""The dtypes of safetensors in torch's words, and stored arrays as tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor

from whet.formats.weight import Weight
from whet.store.array import Array, Planar

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "U16": torch.uint16, "U32": torch.uint32,
    "U64": torch.uint64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


def tensor_of(array: Array) -> Tensor:
    """Return an array as a tensor. Law: both share their memory."""
    return torch.from_numpy(array.data).view(DTYPES[array.dtype])


def weight_of(planar: Planar) -> Weight:
    """Return a matrix as torch sees it. Law: both share their memory."""
    planes = {name: tensor_of(plane) for name, plane in planar.planes.items()}
    return Weight(planar.format, planes, planar.shape)
