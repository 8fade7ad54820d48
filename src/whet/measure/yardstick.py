"""What a machine is looked at by: a small program of the engine, and reading memory. Torch-free.

The best that was seen is kept beside the layouts, so that a process which begins in a slow moment
knows it. A process that waits in vain takes the machine as it is. Once twenty in a row have, what the
last one has seen is the best: a laptop on its battery is slow from now on.
"""

import contextlib
import json
import math
import os
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from whet.base.errors import FolderError, StorageError
from whet.base.machine import processor
from whet.formats.spec import parse
from whet.kernels.native import missing, native
from whet.measure.bandwidth import PROBE, bandwidth
from whet.measure.calm import PATIENCE, Calm, Look
from whet.measure.product import Product, repeated
from whet.runtime.layouts import root, version_of
from whet.store.durable import write_json
from whet.store.json_file import read_json

STEPS = 64  # that all threads meet after, of about a microsecond each
SHAPE = (256, 256)
VAIN = 20  # processes in a row that wait in vain before the machine counts as slow
ALIKE = 0.01  # share by which two times may differ and be the same
CACHED = 1 << 26  # of weights, beyond which a token waits for memory [byte]


@dataclass(frozen=True, slots=True)
class Known:
    """The best of each look [s], and how many processes in a row have waited in vain since."""

    seconds: tuple[float, ...] = ()
    vain: int = 0


def calm(threads: int, weights: int = 0) -> Calm:
    """Return what tells whether so many threads are disturbed, on `weights` read for a token [byte].

    Without kernels, or patience, nothing is looked at, and every moment counts as calm.
    """
    waiting = patience()
    if missing() is not None or not waiting:
        return Calm()
    looks: list[Look] = [repeated(Product(parse("int8-g32"), (SHAPE,)), threads, STEPS)]
    if weights > CACHED:
        looks.append(lambda: PROBE / bandwidth(threads))
    path = _place(threads)
    known = _read(path)
    best = [*known.seconds, *[math.inf] * len(looks)][: len(looks)]
    return Calm(looks, best, lambda found: _keep(path, found, known.vain), waiting)


def patience() -> float:
    """Return how long a process waits and times in vain: `WHET_PATIENCE`, else a quarter of a minute [s]."""
    given = os.environ.get("WHET_PATIENCE", "")
    return float(given) if given.replace(".", "", 1).isdecimal() else PATIENCE


@contextlib.contextmanager
def limited_patience(seconds: float) -> Generator[None]:
    """Let this process and those that it starts wait at most so long [s], inside the context."""
    before = os.environ.get("WHET_PATIENCE")
    os.environ["WHET_PATIENCE"] = f"{min(patience(), max(0.0, seconds)):.3f}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["WHET_PATIENCE"]
        else:
            os.environ["WHET_PATIENCE"] = before


def _place(threads: int) -> Path:
    """Return the file of this machine, with this build of the kernels."""
    told = [processor()[0], native().chosen_tier(), str(threads)]
    told.append(version_of(Path(str(native().__file__))))
    return root() / "calm" / f"{sha256(json.dumps(told).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Known:
    """Return what the file holds; nothing where it is not there or not sound."""
    try:
        held = read_json(path) if path.is_file() else {}
        known = Known(tuple(map(float, held["seconds"])), int(held["vain"]))
    except (FolderError, OSError, KeyError, TypeError, ValueError):
        return Known()
    sound = all(math.isfinite(one) and one > 0 for one in known.seconds)
    return known if sound else Known()


def _keep(path: Path, found: Calm, vain: int) -> None:
    """Write the best of each look, if that is news; where nothing can be kept, nothing is.

    `vain`: how many processes in a row had waited in vain before this one.
    """
    known = _read(path)
    vain = vain + 1 if found.given_up else 0
    mine = found.own if vain >= VAIN else found.best
    best = (*mine, *known.seconds[len(mine) :])
    vain %= VAIN
    same = len(best) == len(known.seconds) and all(map(_alike, best, known.seconds))
    if same and vain == known.vain:
        return
    with contextlib.suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"seconds": list(best), "vain": vain})


def _alike(one: float, other: float) -> bool:
    return abs(one / other - 1) < ALIKE
