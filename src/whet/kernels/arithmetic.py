"""How exactly matrices are multiplied."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

WIDE = 1024  # hidden channels from which `fast` is worth it


@contextmanager
def arithmetic(precision: str) -> Generator[None]:
    """Multiply in float32 (`exact`), or round factors to bfloat16 and add in float32 (`fast`)."""
    mkldnn: Any = torch.backends.mkldnn  # whose stubs do not know `matmul`
    backend = mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "bf16" if precision == "fast" else "ieee"
    try:
        yield
    finally:
        backend.fp32_precision = before


def usual(hidden: int) -> str:
    """Return the arithmetic that suits a model: narrow ones are quick anyway, and feel rounding more."""
    return "fast" if hidden >= WIDE and has_fast() else "exact"


def is_fast() -> bool:
    """Return whether factors are to be rounded to bfloat16 here."""
    backend: Any = torch.backends.mkldnn
    return backend.matmul.fp32_precision == "bf16"


def has_fast() -> bool:
    """Return whether `fast` is really faster here: the processor multiplies bfloat16 itself."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
