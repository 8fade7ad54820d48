"""Hidden states of the calibration tokens between two blocks: in memory while a budget allows, else files."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC
from io import FileIO
from pathlib import Path
from shutil import disk_usage
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.errors import FolderError, StorageError
from whet.base.machine import free_memory

HEADER = 4096  # [byte] before the numbers
MAGIC = "whet hidden states"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
FREE_MEMORY_FRACTION = 0.5  # of the free memory that hidden states may take unless told otherwise

Dtype = Literal["F32", "BF16"]
Shape = tuple[int, int, int]  # samples, time, hidden


@dataclass(slots=True, eq=False)
class MemoryBudget:
    """Memory that hidden states may take together [byte]; what does not fit goes to files.

    Law: what is taken and not given back never exceeds `limit`.
    """

    limit: int = field(default_factory=lambda: int(FREE_MEMORY_FRACTION * free_memory()))
    taken: int = 0

    def take(self, nbytes: int) -> bool:
        """Return whether `nbytes` fit, and reserve them if so."""
        fits = self.taken + nbytes <= self.limit
        self.taken += nbytes if fits else 0
        return fits

    def give_back(self, nbytes: int) -> None:
        """Release what was reserved."""
        self.taken -= nbytes


@dataclass(frozen=True, slots=True, eq=False)
class HiddenStates(ABC):
    """Hidden states of (samples, time, hidden), read and written some samples at a time.

    Law: `read` returns what was written, rounded to `dtype`, wherever it is kept.
    Law: what `save` has left on disk, `open_states` returns, also in another process.
    """

    path: Path  # the file that holds them, or would
    samples: int
    time: int
    hidden: int
    dtype: Dtype
    budget: MemoryBudget

    @property
    def shape(self) -> Shape:
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

    def like(
        self, path: Path, hidden: int | None = None, dtype: Dtype | None = None
    ) -> "HiddenStates":
        """Return new hidden states of as many tokens, under the same budget."""
        shape = self.samples, self.time, hidden or self.hidden
        return create_states(path, shape, dtype or self.dtype, self.budget)

    def chunks(self, batch: int) -> Iterator[tuple[int, Float[Tensor, "batch time hidden"]]]:
        """Yield the number of the first sample, and `batch` samples, until the end."""
        for start in range(0, self.samples, batch):
            yield start, self.read(start, start + batch)

    @property
    @abstractmethod
    def in_memory(self) -> bool:
        """Return whether a killed process loses what was not saved."""

    @abstractmethod
    def write(self, start: int, hidden: Float[Tensor, "batch time hidden"]) -> None:
        """Store samples from number `start` on."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Float[Tensor, "batch time hidden"]:
        """Return samples `start` to `stop` in float32."""

    def view(self, start: int, stop: int) -> Float[Tensor, "batch time hidden"]:
        """Return what `read` does, but perhaps the very numbers: not to be written over."""
        return self.read(start, stop)

    @abstractmethod
    def save(self) -> None:
        """Return when the numbers are safely on disk, at `path`."""

    @abstractmethod
    def release(self) -> None:
        """Give the memory back; what was saved stays on disk."""

    def delete(self) -> None:
        """Give the memory back and remove the file."""
        self.release()
        self.path.unlink(missing_ok=True)


def create_states(
    path: Path, shape: Shape, dtype: Dtype = "F32", budget: MemoryBudget | None = None
) -> HiddenStates:
    """Return empty hidden states: in memory if the budget allows, else in a file of full size."""
    budget = MemoryBudget() if budget is None else budget
    samples, time, hidden = shape
    if budget.take(samples * time * hidden * DTYPES[dtype].itemsize):
        return StatesInMemory.create(path, shape, dtype, budget)
    return StatesInFile.create(path, shape, dtype, budget)


def open_states(path: Path, budget: MemoryBudget | None = None) -> HiddenStates:
    """Return the hidden states that an earlier run has saved at `path`."""
    budget = MemoryBudget() if budget is None else budget
    stored = StatesInFile.open(path, budget)
    if not budget.take(stored.nbytes):
        return stored
    loaded = StatesInMemory.create(path, stored.shape, stored.dtype, budget)
    for start, some in stored.chunks(1):
        loaded.write(start, some)
    return loaded


@dataclass(frozen=True, slots=True, eq=False)
class StatesInMemory(HiddenStates):
    """Hidden states in one tensor, which is on disk only once it is saved."""

    held: list[Tensor]  # the tensor, or nothing once it is released

    @classmethod
    def create(
        cls, path: Path, shape: Shape, dtype: Dtype, budget: MemoryBudget
    ) -> "StatesInMemory":
        """Return hidden states whose memory has been taken from the budget."""
        with torch.inference_mode(mode=False):  # backward passes write them outside of that mode
            held = torch.empty(shape, dtype=DTYPES[dtype])
        return cls(path, *shape, dtype, budget, [held])

    @property
    def in_memory(self) -> bool:
        """Return True."""
        return True

    def write(self, start: int, hidden: Float[Tensor, "batch time hidden"]) -> None:
        """Store samples from number `start` on."""
        assert hidden.shape[1:] == (self.time, self.hidden)
        assert start + len(hidden) <= self.samples
        self.held[0][start : start + len(hidden)] = hidden.detach()

    def read(self, start: int, stop: int) -> Float[Tensor, "batch time hidden"]:
        """Return a copy of samples `start` to `stop` in float32."""
        return self.held[0][start:stop].to(torch.float32, copy=True)

    def view(self, start: int, stop: int) -> Float[Tensor, "batch time hidden"]:
        """Return samples `start` to `stop` in float32, as they lie if they are stored so."""
        return self.held[0][start:stop].float()

    def save(self) -> None:
        """Write the file, under its name only once it is whole."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        file = StatesInFile.create(partial, self.shape, self.dtype, self.budget)
        for start in range(self.samples):
            file.write(start, self.held[0][start : start + 1])
        file.save()
        partial.replace(self.path)

    def release(self) -> None:
        """Give the memory back."""
        if self.held:
            self.held.clear()
            self.budget.give_back(self.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class StatesInFile(HiddenStates):
    """Hidden states in a file, read with plain reads, so that what was read does not stay in memory."""

    @classmethod
    def create(cls, path: Path, shape: Shape, dtype: Dtype, budget: MemoryBudget) -> "StatesInFile":
        """Start a file, replacing what lies there; full size at once."""
        states = cls(path, *shape, dtype, budget)
        header = {"kind": MAGIC, "shape": list(shape), "dtype": dtype}
        try:
            with path.open("wb", buffering=0) as file:
                _write_all(file, memoryview(json.dumps(header).encode().ljust(HEADER)))
                _reserve(file, HEADER + states.nbytes)
        except OSError as error:
            raise _refused(path, states.nbytes, error) from error
        return states

    @classmethod
    def open(cls, path: Path, budget: MemoryBudget) -> "StatesInFile":
        """Return what an earlier run has left at `path`."""
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(HEADER))
            samples, time, hidden = map(int, header["shape"])
            states = cls(path, samples, time, hidden, header["dtype"], budget)
        except (ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path} is not a file of hidden states: {error}") from error
        if header.get("kind") != MAGIC or states.dtype not in DTYPES:
            raise FolderError(f"{path} is not a file of hidden states")
        if path.stat().st_size != HEADER + states.nbytes:
            found, expected = path.stat().st_size, HEADER + states.nbytes
            raise FolderError(f"{path} holds {found} bytes, expected {expected}: it is cut short")
        return states

    @property
    def in_memory(self) -> bool:
        """Return False."""
        return False

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

    def save(self) -> None:
        """Return when the numbers are safely on disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def release(self) -> None:
        """Do nothing: a file takes no memory."""


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
            f"no space for hidden states at {path}: {needed} bytes needed, {free} free",
            "Free some space, calibrate on fewer samples, or allow more memory (--memory).",
        )
    return StorageError(
        f"cannot write hidden states at {path}: {error.strerror}",
        "Check its rights and the disk, or write elsewhere.",
    )
