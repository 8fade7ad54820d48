"""Feed-forward layers of different widths: how `config.json` tells them. Needs no torch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from whet.base.errors import FolderError
from whet.model.architecture import Architecture
from whet.model.config import DAMAGED, LARGEST, Config

KEY = "whet_ffn"  # of config.json: the channels of each block's feed-forward layer


def told(widths: Sequence[int]) -> dict[str, Any]:
    """Return what a config.json says of widths that differ; nothing where they are alike."""
    return {KEY: list(widths)} if len(set(widths)) > 1 else {}


def uneven(config: Config, arch: Architecture) -> Architecture:
    """Return an architecture with the widths that a config.json says, if it says any."""
    widths = config.get(KEY)
    if widths is None:
        return arch
    sound = isinstance(widths, list) and len(widths) == arch.layers
    if not sound or not all(type(one) is int and 0 < one <= LARGEST for one in widths):
        raise FolderError(
            f"config.json: {KEY} is {str(widths)[:80]}, expected {arch.layers} widths, "
            "one for each block",
            DAMAGED,
        )
    if arch.experts is not None:
        raise FolderError(f"config.json: {KEY} in a model with experts", DAMAGED)
    return replace(arch, ffns=tuple(widths), ffn=max(widths))
