"""Evidence: append-only facts with units, one JSON object a line."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from whet.base.errors import FolderError
from whet.base.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Record:
    """What one step did to one site.

    `step` is the method's name or an event ("plan", "block", "measure"); `site` is a module name,
    or "" for the whole model. `fallback` says what was done instead when the method could not do
    what it was asked. `notes` are words without a number, e.g. {"format": "int4-g64"}.
    """

    step: str
    site: str
    facts: Mapping[str, Quantity] = field(default_factory=dict[str, Quantity])
    fallback: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict[str, str])

    def line(self) -> str:
        """Return this record as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)


def read_records(lines: Iterable[str], where: object = "records") -> Iterator[Record]:
    """Yield the records of a `records.jsonl`.

    Law: `read(lines(r)) == r`. Law: what is no record raises FolderError; `where` is their file.
    """
    for number, line in enumerate(lines, 1):
        try:
            found = _record(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FolderError(
                f"{where}, line {number}: not a record ({str(error)[:100]})",
                "The file is damaged; `whet verify` shows what else is.",
            ) from error
        yield found


def _record(raw: dict[str, Any]) -> Record:
    facts = {name: Quantity(**fact) for name, fact in raw["facts"].items()}
    told: list[Any] = [raw.get("step"), raw.get("site"), raw.get("fallback") or ""]
    told += [*raw.get("notes", {}).values(), *(q.unit for q in facts.values())]
    if not all(isinstance(word, str) for word in told):
        raise TypeError("one of its words is no text")
    given: dict[str, Any] = raw | {"facts": facts}
    return Record(**given)


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append records to a file, one line each."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(record.line() + "\n" for record in records)
