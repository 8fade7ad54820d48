"""Measurements of a folder, as records."""

from collections.abc import Callable

from whet.base.record import Record
from whet.measure.quality import compare
from whet.measure.speed import speed as timed
from whet.recipe.progress import Progress, Silence
from whet.runtime.engine import load

Told = Callable[[int, int], None]


def measured(
    folder: str,
    against: str | None,
    data: str | None,
    *,
    speed: bool,
    offline: bool,
    progress: Progress | None,
) -> list[Record]:
    """Return what compression has cost a folder and, if asked, how fast it is beside the original."""
    shown = progress or Silence()
    told = _reader(shown, "windows")
    records = compare(folder, against, data=data or "builtin", offline=offline, told=told)
    if speed:
        engines = [load(source, offline=offline) for source in (folder, against) if source]
        records += timed(engines, told=_reader(shown, "timed rounds"))
    shown.finish()
    return records


def _reader(progress: Progress, what: str) -> Told:
    """Return what hears of `done` units of `total`; the first word of it starts the count."""
    started: list[int] = []

    def told(done: int, total: int) -> None:
        if not started:
            progress.start(total, what)
            started.append(total)
        progress.advance(done, what)

    return told
