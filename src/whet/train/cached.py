"""What a teacher says of a text, on disk, so that it need not be in memory while its student learns.

Of each token the most likely successors and the exact mass of all others are written. Without that
mass the student would learn a distorted distribution (arXiv:2503.16870, §3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.errors import FolderError, StoppedError
from whet.model.decoder import Model
from whet.store.durable import storage_error, write_json
from whet.store.json_file import read_json
from whet.train.loss import Truncated, truncated

PLANES = {"places": np.int32, "logs": np.float32}
DONE = "teacher.json"


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Truncated distributions of all windows, read from disk as they are needed.

    Law: read back, they are what was written.
    """

    folder: Path
    shape: tuple[int, int, int]  # windows, tokens, kept

    def read(self, windows: Int64[Tensor, "batch"]) -> Truncated:
        """Return the distributions of some windows, all tokens in one row after the other."""
        rows = windows.tolist()
        places, logs = (np.stack([self._map(name)[row] for row in rows]) for name in PLANES)
        tail = np.stack([self._map("tail")[row] for row in rows])
        flat = torch.from_numpy(places).flatten(0, 1).long(), torch.from_numpy(logs).flatten(0, 1)
        return Truncated(*flat, torch.from_numpy(tail).flatten())

    def write(self, window: int, known: Truncated) -> None:
        """Store the distributions of one window."""
        values = (("places", known.places), ("logs", known.logs), ("tail", known.tail))
        for name, value in values:
            plane = self._map(name, "r+")
            plane[window] = value.numpy()
            plane.flush()

    def create(self) -> None:
        """Make files of full size, replacing what lies there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in (*PLANES, "tail"):
                self._map(name, "w+").flush()
        except OSError as error:
            raise storage_error(self.folder, error) from error

    def _map(self, name: str, mode: Any = "r") -> "np.memmap[Any, Any]":  # noqa: ANN401 - numpy's words
        shape = self.shape if name in PLANES else self.shape[:2]
        path = self.folder / f"teacher.{name}.bin"
        return np.memmap(path, PLANES.get(name, np.float32), mode, shape=shape)


@torch.no_grad()
def kept(
    teacher: Callable[[], Model],
    ids: Int64[Tensor, "samples time"],
    folder: Path,
    count: int,
    temperature: float,
    told: Callable[[float, str], None],
    stopped: Callable[[], bool],
) -> Kept:
    """Let a teacher read all windows once; goes on where an earlier run has stopped."""
    found = Kept(folder, (len(ids), ids.shape[1] - 1, count))
    done = _done(folder, found.shape)
    if not done:
        found.create()
    model = teacher() if done < len(ids) else None
    for window in range(done, len(ids)):
        assert model is not None
        if stopped():
            raise StoppedError(
                f"stopped before the teacher has read window {window + 1} of {len(ids)}",
                "Run the same command to go on.",
            )
        logits = model(ids[window : window + 1, :-1])[0]
        found.write(window, truncated(logits, count, temperature))
        if (window + 1) % 16 == 0 or window + 1 == len(ids):
            write_json(folder / DONE, {"windows": window + 1, "shape": list(found.shape)})
            told((window + 1) / len(ids), f"teacher reads window {window + 1} of {len(ids)}")
    return found


def _done(folder: Path, shape: tuple[int, int, int]) -> int:
    if not (folder / DONE).is_file():
        return 0
    state = read_json(folder / DONE)
    done, known = state.get("windows"), state.get("shape")
    if not isinstance(done, int) or known != list(shape):
        raise FolderError(f"{folder / DONE} is of another run", "Start afresh with --resume never.")
    return done
