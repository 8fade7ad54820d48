"""What the C library does with memory that is freed."""

import ctypes
import sys
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGEST = 1 << 30  # arrays up to this size are taken from the heap [byte]


def retain(limit: int = 128 << 20) -> None:
    """Let freed memory be used again, up to `limit` [byte]; the rest goes back to the system.

    By default glibc maps every large array anew, and the system must clear each page of it: in work
    with activations that takes as long as arithmetic does. Other C libraries are left as they are.
    """
    _set({MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: limit})


def release(least: int = 1 << 20) -> None:
    """Give freed arrays of `least` [byte] or more back to the system at once.

    By default glibc keeps what may be used again, and the holes between arrays that come and go
    grow to a multiple of what is in use. Other C libraries are left as they are.
    """
    _set({MMAP_THRESHOLD: least, TRIM_THRESHOLD: least})


def trim() -> None:
    """Give all freed memory back to the system, now."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if give_back is not None:
        give_back(0)


def _set(options: Mapping[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
