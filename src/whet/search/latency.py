"""How long the linears of this machine take: measured once by the engine's kernels, then kept.

The table is a file for each processor, tier, number of threads, precision and build of the kernels,
beside the layouts that the engine keeps (`whet.runtime.layouts.root`). A file that is damaged or of
another machine is not used, and a record says so; it may be deleted at any time.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from whet.base.errors import FolderError, StorageError
from whet.base.machine import processor
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.graph.executors.weights import Precision
from whet.kernels.native import native
from whet.measure.product import Product, Stopwatch, Time
from whet.measure.yardstick import calm
from whet.runtime.layouts import root, version_of
from whet.runtime.native import threads as usable
from whet.store.durable import write_json
from whet.store.json_file import read_json
from whet.store.scheme import Scheme

KNOTS = (1, 8, 64, 512)  # rows that are measured; the last one is the engine's largest step
LIMIT = 16 << 20  # of a file [byte]
SMALLEST, LARGEST = 1 << 20, 1 << 27  # sizes of models that caches tell apart [byte]

Machine = Mapping[str, str]


@runtime_checkable
class Timer(Protocol):
    """What times products: `whet.measure.product.Stopwatch`."""

    model_bytes: int

    def refuses(self, product: Product) -> str | None:
        """Return why nothing multiplies by a product's matrices, or None."""
        ...

    def time(self, product: Product, rows: int) -> Time:
        """Return how long it takes, and the size of its layouts."""
        ...


class Latency:
    """The table of one machine (`whet.search.predict.Cost`).

    Law: what it holds is not measured again, by this process or the next.
    Law: between measured rows times are on a line, beyond the last they are added up.
    """

    def __init__(self, timer: Timer, path: Path, machine: Machine) -> None:
        self.timer, self.path, self.machine = timer, path, machine
        self.note, self.measured = "", 0
        self._times = self._read()
        self._refusals: dict[Product, str | None] = {}

    def seconds(self, product: Product, rows: int) -> float:
        """Return the time of a product with so many rows of input [s]."""
        whole, rest = divmod(rows, KNOTS[-1])
        spent = whole * self._time(product, KNOTS[-1]).seconds if whole else 0.0
        return spent + (self._between(product, rest) if rest else 0.0)

    def refuses(self, product: Product) -> str | None:
        """Return why no kernel here multiplies by a product's matrices, or None."""
        if product not in self._refusals:
            self._refusals[product] = self.timer.refuses(product)
        return self._refusals[product]

    def nbytes(self, product: Product) -> int:
        """Return the size of a product's matrices as they are laid out for their kernel [byte]."""
        return self._time(product, KNOTS[0]).nbytes

    def record(self) -> Record:
        """Return what was measured, what was found, and what became of the file."""
        facts = {
            "measured": Quantity(self.measured, "1", "products that were timed now"),
            "known": Quantity(len(self._times), "1", "products in the table"),
        }
        notes = {"processor": self.machine.get("processor", "")}
        return Record("latency", "", facts, self.note or None, notes)

    def _between(self, product: Product, rows: int) -> float:
        place = bisect_left(KNOTS, rows)
        upper = self._time(product, KNOTS[place]).seconds
        if KNOTS[place] == rows:
            return upper
        low, high = KNOTS[place - 1 : place + 1]
        lower = self._time(product, low).seconds
        return lower + (upper - lower) * (rows - low) / (high - low)

    def _time(self, product: Product, rows: int) -> Time:
        name = f"{named(product)}|{rows}|{self.timer.model_bytes}"
        if name not in self._times:
            self._times[name] = self.timer.time(product, rows)
            self.measured += 1
            self._write()
        return self._times[name]

    def _read(self) -> dict[str, Time]:
        """Return what the file holds; nothing, and a note, where it is not to be used."""
        if not self.path.exists():
            return {}
        try:
            held = read_json(self.path, LIMIT)
            return _times(held, self.machine)
        except (FolderError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0][:200]
            self.note = f"the kept table was not used, and is measured anew: {reason}"
            return {}

    def _write(self) -> None:
        """Keep the table, with what others have added to the file in the meantime."""
        note = self.note
        self._times = {**self._read(), **self._times}
        self.note = note
        times = {name: [time.seconds, time.nbytes] for name, time in self._times.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"machine": dict(self.machine), "times": times})
        except (OSError, StorageError) as error:
            self.note = f"the table could not be kept: {str(error)[:200]}"


def named(product: Product) -> str:
    """Return the name of a product in the file, e.g. `int4-g64|256x256+128x256`."""
    shapes = "+".join(f"{rows}x{cols}" for rows, cols in product.shapes)
    return f"{Scheme(product.format, product.activation)}|{shapes}"


def rounded(model_bytes: int) -> int:
    """Return the next power of two, within what caches tell apart [byte]."""
    return min(LARGEST, max(SMALLEST, 1 << max(model_bytes - 1, 1).bit_length()))


def latency(
    model_bytes: int, *, threads: int = 0, precision: Precision = "int16", tier: str = ""
) -> Latency:
    """Return the table of this machine for models of which a token reads so many bytes.

    `threads`: 0 for as many as the engine takes.
    """
    count = threads or usable()
    whole = rounded(model_bytes)
    watch = Stopwatch(count, whole, tier, precision, calm(count, whole))
    machine = {
        "processor": processor()[0],
        "tier": watch.tier,
        "threads": str(count),
        "precision": precision,
        "version": version_of(Path(str(native().__file__))),
    }
    return Latency(watch, place(machine), machine)


def place(machine: Machine) -> Path:
    """Return the file of a machine."""
    name = sha256(json.dumps(dict(machine), sort_keys=True).encode()).hexdigest()[:16]
    return root() / "latency" / f"{name}.json"


def _times(held: Mapping[str, Any], machine: Machine) -> dict[str, Time]:
    """Return what a file holds; raise ValueError if that is not of this machine."""
    if held["machine"] != dict(machine):
        raise ValueError("it is of another machine, or of another build of the kernels")
    return {name: _read_time(entry) for name, entry in held["times"].items()}


def _read_time(entry: Any) -> Time:  # noqa: ANN401 (what JSON holds)
    seconds, nbytes = entry
    sound = isinstance(seconds, float) and math.isfinite(seconds) and seconds > 0
    if not sound or type(nbytes) is not int or nbytes < 0:
        raise ValueError(f"{str(entry)[:60]} is no time and size")
    return Time(seconds, nbytes)
