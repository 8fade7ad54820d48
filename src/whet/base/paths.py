"""Paths as people write them."""

import os
from pathlib import Path


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` and `~name` expanded; an unknown name is left as it is."""
    return Path(os.path.expanduser(path))
