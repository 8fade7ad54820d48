"""Writing so that a file is whole or not there, and a full disk a clear error. Torch-free."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from whet.base.errors import StorageError

Bytes = bytes | bytearray | memoryview
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomic(path: Path, chunks: Iterable[Bytes], size: int | None = None) -> None:
    """Write a file by way of a temporary neighbour: write, fsync, rename, fsync the folder.

    Law: whatever fails, `path` is untouched and no temporary file is left; a failing disk raises
    StorageError. Law: the mode is 0666 & ~umask.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        _write(temporary, chunks)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error, size) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, keys in the given order, two spaces deep."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, [text.encode()], len(text))


def _write(path: Path, chunks: Iterable[Bytes]) -> None:
    """Create a file with these bytes and flush it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_chunks(path: Path, size: int = 8 << 20) -> Iterator[bytes]:
    """Yield a file's bytes in order, at most `size` [byte] at a time."""
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError, needed: int | None = None) -> StorageError:
    """Return what to tell the user when the disk refuses: where, what is needed, what is free."""
    fault = f"{path} cannot be written: {error.strerror or type(error).__name__}"
    if error.errno not in _FULL:
        return StorageError(fault, "check the path, its rights and the disk")
    free = free_bytes(path)
    need = f", {needed} bytes needed" if needed is not None else ""
    have = f", {free} bytes free" if free is not None else ""
    return StorageError(f"{fault}{need}{have}", "free some disk or write elsewhere")


def free_bytes(path: Path) -> int | None:
    """Return the free space [byte] of the disk that would hold `path`, or None if unknown."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None
