"""Weights laid out for this machine's kernels, kept on disk: one file for a model folder.

A file holds a head (where its index is, and the index's digest), the layouts, each at a multiple of
64 bytes, and the index: the key that they were made under, and where each one is. It is written
under another name and then renamed, so that readers see all of it or nothing. What is not as it
should be (another key, a damaged index, a length that is not the file's) is made again.

Files lie in `$WHET_CACHE`, else `$XDG_CACHE_HOME/whet`, else `~/.cache/whet`; they may be deleted at
any time.
"""

import json
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from io import BufferedWriter
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.machine import cores, free_disk
from whet.store.folder import Folder
from whet.version import __version__

Layout = NDArray[np.uint8]
Key = Mapping[str, str]

MAGIC = b"whetlay1"
HEAD = Struct("<8s3Q32s")  # magic, size of the file, start and length of the index, its digest
ALIGNMENT = 64  # [byte]
SAMPLES, SAMPLE = 16, 4096  # pieces of each file that a key depends on, and their size [byte]
INDEX_LIMIT = 64 << 20  # [byte]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layout by its name, and what makes it."""

    name: str
    nbytes: int  # of the stored weight
    make: Callable[[], Layout]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Layouts by name; `note` says where they are, and why not on disk."""

    layouts: Mapping[str, Layout]
    note: str
    made: bool = False
    held: object = field(default=None, repr=False)


def prepared(folder: Path, key: Key, wanted: Iterable[Wanted]) -> Prepared:
    """Return layouts from the file of a folder, which is written first where it does not hold them.

    Law: equal to what `make` gives, wherever they come from.
    """
    every = list(wanted)
    path = place(folder, key)
    found = read(path, key)
    if found is not None and all(one.name in found for one in every):
        return Prepared(found, f"layouts from {path}")
    needed = sum(one.nbytes for one in every)
    try:
        if free_disk(path.parent) < needed + needed // 4:
            return _in_memory(every, f"too little space in {path.parent}")
        _write(path, key, every)
    except OSError as error:
        return _in_memory(every, f"{path.parent} cannot be written to: {error.strerror or error}")
    found = read(path, key)
    if found is None:
        return _in_memory(every, f"{path} was changed while it was written")
    return Prepared(found, f"layouts written to {path}", made=True)


def _in_memory(wanted: Iterable[Wanted], reason: str) -> Prepared:
    layouts = {one.name: layout for one, layout in _made(wanted)}
    return Prepared(layouts, f"layouts in memory: {reason}", made=True)


def root() -> Path:
    """Return where files are kept."""
    own, shared = os.environ.get("WHET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(shared) if shared else Path.home() / ".cache") / "whet"


def place(folder: Path, key: Key) -> Path:
    """Return the file of a folder, for one tier and one way of multiplying."""
    name = sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return root() / "layouts" / f"{name}-{key.get('tier', '')}-{key.get('activations', '')}.layouts"


def content(folder: Folder) -> str:
    """Return a digest of what a folder holds: headers, sizes, times, and samples of its weights."""
    seen = sha256(json.dumps(dict(folder.config), sort_keys=True, default=str).encode())
    for path in folder.weight_files:
        stat = path.stat()
        seen.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns};".encode())
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(number * max(0, stat.st_size - SAMPLE) // (SAMPLES - 1))
                seen.update(file.read(SAMPLE))
    return seen.hexdigest()


def key_of(folder: Folder, tier: str, activations: str, extension: Path) -> Key:
    """Return what layouts depend on."""
    return {
        "content": content(folder),
        "tier": tier,
        "activations": activations,
        "version": version_of(extension),
    }


def version_of(extension: Path) -> str:
    """Return what tells one build of the kernels from another."""
    built = extension.stat()
    return f"{__version__} {built.st_size} {built.st_mtime_ns}"


def read(path: Path, key: Key) -> Mapping[str, Layout] | None:
    """Return the layouts of a file, memory-mapped; None if it is not there or not what it should be.

    Law: a damaged file gives None, without an error and without reading beyond its end.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    index = _index(mapped)
    if index is None or index.get("key") != dict(key):
        return None
    return _views(mapped, index.get("entries"))


def _index(mapped: mmap.mmap) -> dict[str, Any] | None:
    if len(mapped) < HEAD.size:
        return None
    magic, size, start, length, digest = HEAD.unpack_from(mapped)
    sound = magic == MAGIC and size == len(mapped) and start + length == size
    if not sound or length > INDEX_LIMIT:
        return None
    text = mapped[start : start + length]
    if sha256(text).digest() != digest:
        return None
    found = json.loads(text)
    return found if isinstance(found, dict) else None


def _views(mapped: mmap.mmap, entries: object) -> Mapping[str, Layout] | None:
    if not isinstance(entries, dict):
        return None
    whole = np.frombuffer(mapped, np.uint8)
    found: dict[str, Layout] = {}
    for name, (start, size) in entries.items():
        if not (HEAD.size <= start and size >= 0 and start + size <= len(whole)):
            return None
        found[name] = whole[start : start + size]
    return found


def _write(path: Path, key: Key, wanted: Iterable[Wanted]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".layouts-")
    try:
        with os.fdopen(handle, "wb") as file:
            _fill(file, key, wanted)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _fill(file: BufferedWriter, key: Key, wanted: Iterable[Wanted]) -> None:
    position = _aligned(HEAD.size)
    entries: dict[str, tuple[int, int]] = {}
    for one, layout in _made(wanted):
        file.seek(position)
        file.write(layout.data)
        entries[one.name] = (position, layout.nbytes)
        position = _aligned(position + layout.nbytes)
    text = json.dumps({"key": dict(key), "entries": entries}).encode()
    file.seek(position)
    file.write(text)
    file.seek(0)
    digest = sha256(text).digest()
    file.write(HEAD.pack(MAGIC, position + len(text), position, len(text), digest))


def _made(wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, Layout]]:
    """Yield the layouts in order; as many are made at once as there are threads."""
    count = cores()
    with ThreadPoolExecutor(count) as pool:
        due: deque[tuple[Wanted, Future[Layout]]] = deque()
        for one in wanted:
            due.append((one, pool.submit(one.make)))
            if len(due) > count:
                first, layout = due.popleft()
                yield first, layout.result()
        for one, layout in due:
            yield one, layout.result()


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
