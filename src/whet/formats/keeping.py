"""What keys and values of earlier tokens are kept in. Torch-free.

    f32, f16, bf16   rounded
    int8             codes with a float32 scale for each token of a head
    kv4, kv2         codes of 4 or 2 bits with a scale and a least value in bf16: of keys for each
                     channel of a page, of values for each token and 32 channels (KIVI,
                     arXiv:2402.02750, §3); the page that is not full yet is kept in bf16

A page has 64 tokens.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from whet.base.errors import FolderError, RecipeError

Keeping = Literal["f32", "f16", "bf16", "int8", "kv4", "kv2"]

KEEPINGS: tuple[Keeping, ...] = get_args(Keeping)
USUAL: Keeping = "bf16"  # of the native kernels, unless a folder or a flag says so
KEY = "whet_kv_cache"  # of config.json
PAGE = 64  # [token]
GROUP = 32  # channels of a value that share a scale
BITS: Mapping[Keeping, int] = {"f32": 32, "f16": 16, "bf16": 16, "int8": 8, "kv4": 4, "kv2": 2}


def keeping_of(config: Mapping[str, Any]) -> Keeping | None:
    """Return what a config.json says that keys and values are kept in, if it says so."""
    told = config.get(KEY)
    if told is None:
        return None
    if told not in KEEPINGS:
        raise FolderError(
            f"config.json: {KEY} is {told!r}, expected one of {', '.join(KEEPINGS)}",
            f"Remove {KEY}, or write one of them.",
        )
    return told


def parse_keeping(name: str) -> Keeping:
    """Return what keys and values are kept in by its name. Raises RecipeError for another word."""
    if name not in KEEPINGS:
        known = ", ".join(KEEPINGS)
        raise RecipeError(f"cache is {name!r}, expected one of {known}", "E.g. --cache int8.")
    return name


def coded_by_page(keeping: Keeping | None) -> bool:
    """Return whether a page is coded once it is full."""
    return keeping in ("kv4", "kv2")


def padded(dim: int) -> int:
    """Return the channels of a head with the zeros that fill it up."""
    return -(-dim // 16) * 16


def page_bytes(keeping: Keeping, dim: int) -> int:
    """Return the size of a page of keys and values of one head [byte]."""
    channels = padded(dim)
    codes = 2 * channels * PAGE * BITS[keeping] // 8
    if keeping == "int8":
        return codes + 2 * 4 * PAGE
    if coded_by_page(keeping):
        return codes + 4 * channels + 4 * PAGE * -(-channels // GROUP)
    return codes
