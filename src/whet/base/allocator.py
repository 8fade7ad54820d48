"""What the C library does with memory that is freed."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGEST = 1 << 30  # arrays up to this size are taken from the heap [byte]


def retain(limit: int = 128 << 20) -> None:
    """Let freed memory be used again, up to `limit` [byte]; the rest goes back to the system.

    By default glibc maps every large array anew, and the system must clear each page of it: in work
    with activations that takes as long as arithmetic does. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, limit)
