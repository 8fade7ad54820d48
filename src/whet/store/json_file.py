"""JSON of strangers: bounded, without duplicate keys, never a traceback. Torch-free."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from whet.base.errors import FolderError
from whet.store.regular import regular

LIMIT = 64 << 20  # [byte]


def read_json(path: Path, limit: int = LIMIT) -> dict[str, Any]:
    """Return the object in a JSON file of at most `limit` bytes."""
    size = regular(path)
    if size > limit:
        raise FolderError(f"{path} has {size} bytes, expected at most {limit}", "check the file")
    return parse_json(path.read_bytes(), str(path))


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Law: bad UTF-8, duplicate keys, NaN, deep nesting, huge numbers or anything but an object raise
    FolderError that names `where`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FolderError(
            f"{where} is not valid JSON: {reason[:200]}", "restore the file from its source"
        ) from None
    if not isinstance(value, dict):
        raise FolderError(
            f"{where} holds a {type(value).__name__}, expected an object", "check the file"
        )
    return value


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} appears twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
