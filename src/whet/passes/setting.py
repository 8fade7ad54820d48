"""Settings of methods: fields of plain types that say what they mean."""

from dataclasses import field
from typing import Any


def setting(default: Any, doc: str) -> Any:
    """Return a dataclass field with a default; `doc` is its line in schema, help and `whet list`."""
    return field(default=default, metadata={"doc": doc})
