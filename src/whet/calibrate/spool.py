"""Activations between two blocks, on disk: they outgrow memory long before the weights do."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from io import FileIO
from pathlib import Path
from shutil import disk_usage
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.errors import FolderError, StorageError

HEADER = 4096  # [byte] before the numbers
MAGIC = "whet spool"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Spool:
    """A file of hidden states, read and written some samples at a time.

    It is read with plain reads, not mapped, so that what was read does not stay in memory.
    Law: `read` returns what was written, rounded to `dtype`.
    """

    path: Path
    samples: int
    time: int
    hidden: int
    dtype: Literal["F32", "BF16"] = "F32"

    @classmethod
    def create(
        cls,
        path: Path,
        shape: tuple[int, int, int],
        dtype: Literal["F32", "BF16"] = "F32",
    ) -> "Spool":
        """Start a file of (samples, time, hidden), replacing what lies there; full size at once."""
        spool = cls(path, *shape, dtype)
        header = {"kind": MAGIC, "shape": list(shape), "dtype": dtype}
        try:
            with path.open("wb", buffering=0) as file:
                _write_all(file, memoryview(json.dumps(header).encode().ljust(HEADER)))
                _reserve(file, HEADER + spool.nbytes)
        except OSError as error:
            raise _refused(path, spool.nbytes, error) from error
        return spool

    @classmethod
    def open(cls, path: Path) -> "Spool":
        """Return the spool that an earlier run has left at `path`."""
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(HEADER))
            samples, time, hidden = map(int, header["shape"])
            spool = cls(path, samples, time, hidden, header["dtype"])
        except (ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path} is not a file of activations: {error}") from error
        if header.get("kind") != MAGIC or spool.dtype not in DTYPES:
            raise FolderError(f"{path} is not a file of activations")
        if path.stat().st_size != HEADER + spool.nbytes:
            found, expected = path.stat().st_size, HEADER + spool.nbytes
            raise FolderError(f"{path} holds {found} bytes, expected {expected}: it is cut short")
        return spool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples, time and hidden."""
        return self.samples, self.time, self.hidden

    @property
    def sample_bytes(self) -> int:
        """Size of one sample [byte]."""
        return self.time * self.hidden * DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        """Size of the numbers [byte]."""
        return self.samples * self.sample_bytes

    def write(self, start: int, hidden: Float[Tensor, "batch time hidden"]) -> None:
        """Store samples from number `start` on."""
        assert hidden.shape[1:] == (self.time, self.hidden)
        assert start + len(hidden) <= self.samples
        plain = hidden.detach().to(DTYPES[self.dtype]).contiguous().view(torch.uint8)
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(HEADER + start * self.sample_bytes)
                _write_all(file, plain.numpy().data.cast("B"))
        except OSError as error:
            raise _refused(self.path, self.nbytes, error) from error

    def read(self, start: int, stop: int) -> Float[Tensor, "batch time hidden"]:
        """Return samples `start` to `stop` in float32."""
        stop = min(stop, self.samples)
        raw = bytearray(max(stop - start, 0) * self.sample_bytes)
        with self.path.open("rb", buffering=0) as file:
            file.seek(HEADER + start * self.sample_bytes)
            if raw and _read_all(file, memoryview(raw)) != len(raw):
                raise FolderError(f"{self.path} ends before sample {stop}: it is cut short")
        if not raw:
            return torch.empty(0, self.time, self.hidden)
        flat = torch.frombuffer(raw, dtype=DTYPES[self.dtype])
        return flat.view(-1, self.time, self.hidden).float()

    def chunks(self, batch: int) -> Iterator[tuple[int, Float[Tensor, "batch time hidden"]]]:
        """Yield the number of the first sample, and `batch` samples, until the end."""
        for start in range(0, self.samples, batch):
            yield start, self.read(start, start + batch)

    def flush(self) -> None:
        """Return when the numbers are safely on disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def delete(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _write_all(file: FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) or 0 :]


def _read_all(file: FileIO, into: memoryview) -> int:
    done = 0
    while done < len(into) and (count := file.readinto(into[done:])):
        done += count
    return done


def _reserve(file: FileIO, size: int) -> None:
    """Give a file its full size, on disk where the system can promise that."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def _refused(path: Path, needed: int, error: OSError) -> StorageError:
    if error.errno in {ENOSPC, EDQUOT}:
        free = disk_usage(path.parent).free
        return StorageError(
            f"no space for activations at {path}: {needed} bytes needed, {free} free",
            "Free some space, or calibrate on fewer samples.",
        )
    return StorageError(
        f"cannot write activations at {path}: {error.strerror}",
        "Check its rights and the disk, or write elsewhere.",
    )
