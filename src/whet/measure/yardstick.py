"""What a machine is looked at by: a small program of the engine, and reading memory. Torch-free.

The best that was seen is kept beside the layouts, so that a process which begins in a slow moment
knows it. A process that waits in vain takes the machine as it is, and what it has seen is then the best:
a laptop on its battery is slow from now on.
"""

import contextlib
import json
import math
import os
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
ALIKE = 0.01  # share by which two times may differ and be the same
CACHED = 1 << 26  # of weights, beyond which a token waits for memory [byte]


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
    best = [*_read(path), *[math.inf] * len(looks)][: len(looks)]
    return Calm(looks, best, lambda found: _keep(path, found), waiting)


def patience() -> float:
    """Return how long a process waits and times in vain: `WHET_PATIENCE`, else a quarter of a minute [s]."""
    given = os.environ.get("WHET_PATIENCE", "")
    return float(given) if given.replace(".", "", 1).isdecimal() else PATIENCE


def _place(threads: int) -> Path:
    """Return the file of this machine, with this build of the kernels."""
    told = [processor()[0], native().chosen_tier(), str(threads)]
    told.append(version_of(Path(str(native().__file__))))
    return root() / "calm" / f"{sha256(json.dumps(told).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> list[float]:
    """Return the best of each look [s]; nothing where the file is not there or not sound."""
    try:
        held = read_json(path)["seconds"] if path.is_file() else []
    except (FolderError, OSError, KeyError):
        return []
    sound = isinstance(held, list) and all(
        isinstance(one, float) and math.isfinite(one) and one > 0 for one in held
    )
    return list(held) if sound else []


def _keep(path: Path, found: Calm) -> None:
    """Write the best of each look, if that is news; where nothing can be kept, nothing is."""
    known = _read(path)
    best = found.own if found.given_up else found.best
    best = [*best, *known[len(best) :]]
    if len(best) == len(known) and all(map(_alike, best, known)):
        return
    with contextlib.suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"seconds": best})


def _alike(one: float, other: float) -> bool:
    return abs(one / other - 1) < ALIKE
