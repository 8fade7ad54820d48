"""The state of a descent on disk: one safetensors file, whole whoever writes and reads it.

Tensors that are divided among processes are gathered one at a time while the first process writes,
so none ever holds all of them, and any number of processes can go on from the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from whet.base.errors import FolderError
from whet.store.array import stored
from whet.store.dtypes import NAMES, tensor_of
from whet.store.shard import Shard
from whet.store.writer import Pending, in_order, pending, write_shard
from whet.train.sharded import is_divided, local, piece, whole

AFRESH = "Start afresh with --resume never."
LOSSES = "losses"


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What is kept of a descent of `steps` steps: tensors that are changed in place, and its losses.

    Law: read back, it is what was written, bit for bit.
    """

    path: Path
    steps: int

    def write(self, tensors: Mapping[str, Tensor], losses: list[float], *, first: bool) -> None:
        """Write the state in one rename, if `first`; the others hand in their pieces."""
        told = pending(torch.tensor(losses, dtype=torch.float64))
        due = {name: _pending(value) for name, value in tensors.items()} | {LOSSES: told}
        if first:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_shard(self.path, due, {"steps": str(self.steps)})
            return
        for name in in_order({name: (item.dtype, item.shape) for name, item in due.items()}):
            if name in tensors and is_divided(tensors[name]):
                whole(tensors[name].detach())

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> list[float]:
        """Put what was written into tensors, and return the losses."""
        shard = Shard(self.path)
        found = {name: (info.dtype, info.shape) for name, info in shard.tensors.items()}
        losses = found.pop(LOSSES, None)
        if (
            losses is None
            or shard.metadata.get("steps") != str(self.steps)
            or found
            != {n: (NAMES[value.dtype], tuple(value.shape)) for n, value in tensors.items()}
        ):
            raise FolderError(f"{self.path} is the state of another training", AFRESH)
        for name, value in tensors.items():
            local(value).copy_(piece(tensor_of(stored(shard, name)), value))
        return tensor_of(stored(shard, LOSSES)).tolist()


def _pending(value: Tensor) -> Pending:
    """Return a tensor that is gathered, if it is divided, when its turn comes."""
    return Pending(NAMES[value.dtype], tuple(value.shape), partial(_bytes, value))


def _bytes(value: Tensor) -> Iterator[bytes | bytearray | memoryview]:
    yield from pending(whole(value.detach())).chunks()
