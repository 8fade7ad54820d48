"""A log that TensorBoard draws."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from whet.base.paths import local_path
from whet.train.course import Log, silent


def missing(folder: str) -> str | None:
    """Return what must be installed before a log can be written; None if nothing."""
    if not folder or find_spec("tensorboard"):
        return None
    return 'log needs TensorBoard: pip install "whet[train]"'


def board(folder: str) -> Log:
    """Return what writes the numbers of each step to a folder; an empty name writes nothing."""
    if not folder:
        return silent
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(local_path(folder))

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return write
