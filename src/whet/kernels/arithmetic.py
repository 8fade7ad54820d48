"""How exactly matrices are multiplied."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal

import torch

Precision = Literal["exact", "mixed", "fast"]
WIDE = 1024  # hidden channels from which `fast` is worth it
NARROW = 256  # hidden channels from which `mixed` is worth it
_rounds: ContextVar[bool] = ContextVar("_rounds", default=False)


@contextmanager
def arithmetic(precision: str) -> Generator[None]:
    """Multiply in float32 (`exact`), or round factors to bfloat16 and add in float32 (`fast`).

    `mixed` multiplies activations by weights in float32. In `mixed` and `fast`, sums of products of
    two activations may round these to 8 bits (`whet.kernels.gram`), and so may the products of a
    model that is only compared with (`whet.kernels.rounded`).
    """
    mkldnn: Any = torch.backends.mkldnn  # whose stubs do not know `matmul`
    backend = mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "bf16" if precision == "fast" else "ieee"
    token = _rounds.set(precision != "exact")
    try:
        yield
    finally:
        _rounds.reset(token)
        backend.fp32_precision = before


def usual(hidden: int) -> Precision:
    """Return the arithmetic that suits a model: narrow ones are quick anyway, and feel rounding more."""
    if hidden >= WIDE and has_fast():
        return "fast"
    return "mixed" if hidden >= NARROW and has_codes() else "exact"


def is_fast() -> bool:
    """Return whether factors are to be rounded to bfloat16 here."""
    backend: Any = torch.backends.mkldnn
    return backend.matmul.fp32_precision == "bf16"


def sums_codes() -> bool:
    """Return whether products of two activations are to be those of 8-bit codes here."""
    return _rounds.get() and has_codes()


@cache
def has_fast() -> bool:
    """Return whether `fast` is really faster here: the processor multiplies bfloat16 itself.

    oneDNN also takes bfloat16 where it has to widen it first, which is slower than float32.
    """
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return _has("_is_avx512_bf16_supported") or _has("_is_amx_tile_supported")
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def has_codes() -> bool:
    """Return whether products of 8-bit integers are faster than those of float32 here."""
    return _has("_is_vnni_supported") or has_fast()


def _has(name: str) -> bool:
    """Return what torch knows of the processor; False where this version does not know."""
    known: Any = torch.cpu
    return bool(getattr(known, name, lambda: False)())
