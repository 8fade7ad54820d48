"""Measurements in a process of their own, where nothing else has been.

In a process with torch and a search's arrays a small model's tokens take a fifth longer, and two large
models beside them take more memory than there may be. Whoever runs a folder has none of it.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from whet.base import errors
from whet.base.errors import WhetError
from whet.base.record import Record, read_records
from whet.formats.keeping import Keeping
from whet.measure.memory import child

if TYPE_CHECKING:
    from whet.measure.rest import Linears, Rest
    from whet.runtime.engine import Engine


class Rounds(TypedDict, total=False):
    """What is timed, and how often, as `whet.measure.speed.speed` has it."""

    prompt: int
    others: tuple[int, ...]
    runs: int
    seconds: float
    context: int


def speed(
    folders: Sequence[Path], *, cache: Keeping | None = None, **rounds: Unpack[Rounds]
) -> list[Record]:
    """Return what `whet.measure.speed.speed` says of some folders.

    `cache`: what their keys and values are kept in; None: what each of them says.
    """
    asked = {"folders": [str(path.absolute()) for path in folders], "cache": cache}
    return _records("speed", asked | dict(rounds))


def compare(folder: Path, original: Path, data: str, count: int) -> list[Record]:
    """Return what `whet.measure.quality.compare` says of a folder beside its original."""
    asked = {"folder": str(folder.absolute()), "original": str(original.absolute())}
    return _records("compare", asked | {"data": data, "count": count})


def guided(folder: Path, draft: Path, data: str) -> Record:
    """Return what `whet.measure.guided.guided` says of a folder and a draft."""
    asked = {"folder": str(folder.absolute()), "draft": str(draft.absolute()), "data": data}
    return _records("guided", asked)[0]


def rest(engine: "Engine", *, others: "Linears | None" = None, memory: bool = True) -> "Rest":
    """Return what `whet.measure.rest.rest` says of an engine's folder, as it is kept there."""
    from whet.measure.rest import PROMPTS, Rest

    lengths = (1, *PROMPTS)
    asked = {
        "folder": str(engine.folder.absolute()),
        "cache": engine.executor.notes.get("cache"),
        "others": {str(n): others(n) for n in lengths} if others is not None else {},
        "memory": memory,
    }
    found = json.loads(_answer("rest", asked))
    return Rest(**found | {"first": tuple((n, s) for n, s in found["first"])})


def _records(what: str, asked: Mapping[str, object]) -> list[Record]:
    return list(read_records(_answer(what, asked).split("\n")))  # words may have other line ends


def _answer(what: str, asked: Mapping[str, object]) -> str:
    """Return what the other process says; its errors are raised here."""
    found = json.loads(child([sys.executable, "-m", "whet.measure.apart", what, json.dumps(asked)]))
    if "error" in found:
        raise getattr(errors, found["error"])(found["message"], found["hint"])
    return found["answer"]


def _speed(folders: Sequence[str], cache: Keeping | None, **rounds: Any) -> str:  # noqa: ANN401
    from whet.measure.speed import speed
    from whet.runtime.engine import load

    found = speed([load(path, cache=cache) for path in folders], **rounds)
    return "\n".join(record.line() for record in found)


def _compare(folder: str, original: str, data: str, count: int) -> str:
    from whet.measure.quality import compare

    return "\n".join(record.line() for record in compare(folder, original, data=data, count=count))


def _guided(folder: str, draft: str, data: str) -> str:
    from whet.measure.guided import guided
    from whet.runtime.engine import load

    large, small = (load(path, draft=False) for path in (folder, draft))
    return guided(large, small, data).line()


def _rest(folder: str, cache: Keeping | None, others: dict[str, float], *, memory: bool) -> str:
    from whet.measure.rest import rest
    from whet.runtime.engine import load

    engine = load(folder, "native", cache=cache, draft=False)

    def linears(rows: int) -> float:
        return others[str(rows)]

    found = rest(engine, others=linears if others else None, memory=memory)
    return json.dumps(asdict(found))


def _main(what: str, asked: str) -> None:
    """Answer on stdout."""
    kinds = {"compare": _compare, "guided": _guided, "rest": _rest, "speed": _speed}
    try:
        told = {"answer": kinds[what](**json.loads(asked))}
    except WhetError as error:
        told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main(*sys.argv[1:])
