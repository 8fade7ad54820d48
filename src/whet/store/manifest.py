"""The list of an output folder's files and their SHA-256, and its check. Torch-free."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whet.base.errors import FolderError
from whet.store.digest import file_digest
from whet.store.durable import write_atomic
from whet.store.json_file import read_json

MANIFEST = "manifest.json"
VERSION = 1


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `manifest.json` over all files that the folder holds now; it must be the last one.

    `facts` are kept under "facts": versions, machine, seed, digests of source and calibration.
    """
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)}
        for name in _names(folder)
    }
    text = _text({"version": VERSION, "files": files, "facts": dict(facts)})
    write_atomic(folder / MANIFEST, [text], len(text))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FolderError(f"{folder} has no {MANIFEST}", "only folders written by whet have one")
    manifest = read_json(path)
    if manifest.get("version") != VERSION or not isinstance(manifest.get("files"), dict):
        raise FolderError(
            f"{path} has version {manifest.get('version')!r}, expected {VERSION}", "update whet"
        )
    return manifest


def verify(folder: Path) -> list[str]:
    """Return what differs from the manifest, a sentence each; an intact folder gives none.

    Law: any changed, missing, added or linked file is found, the manifest included.
    """
    try:
        manifest = read_manifest(folder)
    except FolderError as error:
        if (folder / MANIFEST).is_file():
            return [f"{MANIFEST}: {error.message}"]
        raise
    found = [] if _genuine(folder, manifest) else [f"{MANIFEST} was changed after it was written"]
    listed: dict[str, Any] = manifest["files"]
    present = set(_names(folder))
    found += [f"{name} is missing" for name in sorted(listed) if name not in present]
    found += [f"{name} is not in the manifest" for name in sorted(present) if name not in listed]
    for name in sorted(present & listed.keys()):
        found += _difference(folder / name, name, listed[name])
    return found


def _difference(path: Path, name: str, entry: Any) -> list[str]:  # noqa: ANN401 (from JSON)
    if path.is_symlink() or not path.is_file():
        return [f"{name} is not a regular file"]
    if not isinstance(entry, dict):
        return [f"{name} has no entry that can be read"]
    size = path.stat().st_size
    if size != entry.get("bytes"):
        return [f"{name} has {size} bytes, expected {entry.get('bytes')}"]
    return [] if file_digest(path) == entry.get("sha256") else [f"{name} has other content"]


def _text(manifest: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of a manifest, sealed by their own digest."""
    bare = {key: value for key, value in manifest.items() if key != "seal"}
    seal = hashlib.sha256(_canonical(bare)).hexdigest()
    return _canonical(bare | {"seal": seal})


def _canonical(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _genuine(folder: Path, manifest: Mapping[str, Any]) -> bool:
    return (folder / MANIFEST).read_bytes() == _text(manifest)


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of all files but the manifest, in order."""
    names: list[str] = []
    for root, _, files in os.walk(folder):
        names += [(Path(root) / name).relative_to(folder).as_posix() for name in files]
    yield from sorted(name for name in names if name != MANIFEST)
