"""The key-value pairs of a GGUF file; each is checked where it is read. Torch-free."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from whet.store.gguf.header import Header, damaged

LARGEST = 1 << 31


class Metadata:
    """What a file says of its model, under the architecture that it names."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.values: Mapping[str, Any] = header.values
        self.architecture = self.text("general.architecture")

    def text(self, key: str) -> str:
        """Return a text that must be there."""
        found = self.values.get(key)
        if not isinstance(found, str):
            raise damaged(self.path, f"has {key} = {str(found)[:40]!r}, expected a text")
        return found

    def own(self, key: str) -> Any:  # noqa: ANN401 (as the file says)
        """Return a value of the architecture, or None."""
        return self.values.get(f"{self.architecture}.{key}")

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a positive integer of the architecture; a list must say the same of every block."""
        found = self.own(key)
        if isinstance(found, list) and found and len(set(cast("list[Any]", found))) == 1:
            found = found[0]
        found = default if found is None else found
        if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < LARGEST:
            raise self._unfit(key, found, "a positive integer")
        return found

    def real(self, key: str, default: float | None = None) -> float:
        """Return a number of the architecture."""
        found = self.own(key)
        found = default if found is None else found
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self._unfit(key, found, "a number")
        return float(found)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a truth value of the architecture."""
        found = self.own(key)
        if found is not None and not isinstance(found, bool):
            raise self._unfit(key, found, "true or false")
        return default if found is None else found

    def has(self, tensor: str) -> bool:
        """Say whether the file holds a tensor."""
        return tensor in self.header.tensors

    def sliding(self, layers: int, period: int) -> list[bool]:
        """Return which blocks have a window: as the file says, or all but each `period`-th."""
        found = self.own("attention.sliding_window_pattern")
        if isinstance(found, list):
            pattern = cast("list[Any]", found)
            if len(pattern) != layers or not all(type(item) in (bool, int) for item in pattern):
                raise self._unfit("attention.sliding_window_pattern", pattern, f"{layers} choices")
            return [bool(item) for item in pattern]
        period = self.whole("attention.sliding_window_pattern", period)
        return [(layer + 1) % period != 0 for layer in range(layers)]

    def _unfit(self, key: str, found: object, expected: str) -> Exception:
        where = f"{self.architecture}.{key}"
        return damaged(self.path, f"has {where} = {str(found)[:40]}, expected {expected}")
