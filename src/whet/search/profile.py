"""A machine described by a file: what linears would take there, by the roofline model. Torch-free.

    name: a phone
    bandwidth: 2.0e10            # of memory [byte/s]
    memory: 4.0e9                # [byte]
    threads: 4
    overhead: 1.0e-6             # of an operator, once all threads have met [s]
    process: 6.0e+7              # memory of the program without a model [byte]
    int8: {gemv: 5.0e10, gemm: 4.0e11}   # arithmetic on one row, on many [1/s]
    bf16: {gemv: 4.0e10, gemm: 1.0e11}

A linear takes as long as its bytes take to be read or its operations to be done, whichever is
longer (Williams, Waterman and Patterson, Roofline, doi:10.1145/1498765.1498785), and the overhead.

Law: more bytes are never faster. Law: more rows are never faster. Law: `loads(dumps(p)) == p`.
"""

import math
import sys
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from psutil import virtual_memory

from whet.base.errors import MissingError, RecipeError
from whet.base.machine import processor
from whet.formats.spec import Coded, Format, parse
from whet.formats.terms import Term, terms
from whet.graph.executors.weights import not_worth_expanding, refusal, way_of
from whet.graph.weights import Part
from whet.kernels.native import missing, native
from whet.measure.memory import child
from whet.measure.product import Product, Stopwatch
from whet.measure.yardstick import calm
from whet.runtime.native import threads as usable

LONGEST = 1 << 16  # of a file [byte]
HALVES = 2  # of an int16 input, which is multiplied by in turn
OPERATORS = 2  # of a product with a matrix: its input is prepared, then multiplied
EXAMPLE = "`whet.search.profile.measured` makes the profile of the machine that it runs on."
NUMBERS = {"bandwidth": "byte/s", "memory": "byte", "overhead": "s", "process": "byte"}
PROBED = {"int8": parse("int8-g32"), "bf16": parse("bf16")}
PROBE, RUNS = 256 << 20, 5  # of bandwidth [byte], rounds
SQUARE, MANY = (512, 512), 512  # of rates: a matrix that caches hold, and rows of input
EMPTY = (
    "import whet.runtime.engine, whet.runtime.native; from whet.base.machine import resident; "
    "print(resident())"
)  # what a process holds before it has a model


@dataclass(frozen=True, slots=True)
class Rates:
    """Multiplications and additions in a second: of one row of input, and of many [1/s]."""

    gemv: float
    gemm: float

    def seconds(self, operations: int, rows: int) -> float:
        """Return the time of `operations` on each row [s]."""
        return operations * (1 / self.gemv + (rows - 1) / max(self.gemv, self.gemm))


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine in a few numbers (`whet.search.predict.Cost`)."""

    name: str
    bandwidth: float  # [byte/s]
    memory: float  # [byte]
    threads: int
    overhead: float  # of an operator [s]
    process: float  # memory of the program without a model [byte]
    int8: Rates
    bf16: Rates

    def seconds(self, product: Product, rows: int) -> float:
        """Return the time of a product with so many rows of input [s]."""
        done = sum(
            self._seconds(term, product.part(number), rows)
            for number, shape in enumerate(product.shapes)
            for term in terms(product.format, shape)
        )
        met = OPERATORS * sum(1 for _ in terms(product.format, product.shapes[0]))
        return max(self.nbytes(product) / self.bandwidth, done) + self.overhead * met

    def refuses(self, product: Product) -> str | None:
        """Return why no kernel multiplies by a product's matrices on any machine, or None."""
        for number, shape in enumerate(product.shapes):
            reason = product.format.refuses(shape)
            if reason is None and missing() is None:
                reason = refusal(product.part(number), "generic", "int16")
            if reason:
                return reason
        return None

    def nbytes(self, product: Product) -> int:
        """Return the size of a product's matrices as kernels read them [byte]."""
        return sum(
            _nbytes(term) for shape in product.shapes for term in terms(product.format, shape)
        )

    def _seconds(self, term: Term, part: Part, rows: int) -> float:
        """Return the time of the arithmetic that multiplies by a matrix [s]."""
        mode, operations = way_of(term, part, "int16").mode, 2 * term.shape[0] * term.shape[1]
        rates = self.bf16 if mode == "bf16" else self.int8
        return rates.seconds(HALVES * operations if mode == "int16" else operations, rows)


def read(path: Path) -> Profile:
    """Read a profile from a file."""
    if not path.is_file():
        raise MissingError(f"no profile at {path}", EXAMPLE)
    if path.stat().st_size > LONGEST:
        size = path.stat().st_size
        raise RecipeError(f"{path} is {size} bytes; a profile has at most {LONGEST}", EXAMPLE)
    try:
        return loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text ({error.reason})", EXAMPLE) from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error.message}", error.hint) from error


def loads(text: str) -> Profile:
    """Read a profile. Law: `loads(dumps(p)) == p`."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"not valid YAML: {reason}", EXAMPLE) from error
    held = _fields(data, "a profile", Profile)
    numbers = {name: _number(held[name], name) for name in NUMBERS}
    threads = held["threads"]
    if type(threads) is not int or threads < 1:
        raise RecipeError(f"threads = {threads!r}; expected an integer above 0", EXAMPLE)
    name = held["name"]
    if not isinstance(name, str) or not name.strip():
        raise RecipeError(f"name = {name!r}; expected some words", EXAMPLE)
    int8, bf16 = (_rates(held[kind], kind) for kind in ("int8", "bf16"))
    return Profile(name=name, threads=threads, int8=int8, bf16=bf16, **numbers)


def dumps(profile: Profile) -> str:
    """Write a profile."""
    return yaml.safe_dump(asdict(profile), sort_keys=False, allow_unicode=True)


def measured(threads: int = 0, name: str = "") -> Profile:
    """Return the profile of this machine: `threads`, 0 for as many as the engine takes."""
    count = threads or usable()
    speeds = [float(native().read_bandwidth(PROBE, count, 1)) for _ in range(RUNS)]
    watch = Stopwatch(count, 1, precision="int8", calm=calm(count))  # one copy, which caches hold
    int8, bf16 = (_measured_rates(watch, PROBED[kind]) for kind in ("int8", "bf16"))
    least = watch.time(Product(PROBED["bf16"], ((16, 16),)), 1).seconds
    command = [sys.executable, "-c", EMPTY]
    return Profile(
        name=name or processor()[0],
        bandwidth=median(speeds),
        memory=float(virtual_memory().total),
        threads=count,
        overhead=least / OPERATORS,
        process=float(child(command)),
        int8=int8,
        bf16=bf16,
    )


def _measured_rates(watch: Stopwatch, format_: Format) -> Rates:
    product = Product(format_, (SQUARE,))
    one, many = (watch.time(product, rows).seconds for rows in (1, MANY))
    gemv = product.operations / one
    return Rates(gemv, max(gemv, product.operations * MANY / many))  # interference may slow many


def _fields(data: object, what: str, kind: type) -> dict[str, Any]:
    """Return a mapping that has just the fields of a class."""
    known = [field.name for field in fields(kind)]
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise RecipeError(f"{what} is a mapping with {', '.join(known)}, not {found}", EXAMPLE)
    held = {str(name): value for name, value in data.items()}
    for name in held:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(known)}"
            raise RecipeError(f"{what} has no field {name!r}", hint)
    if lacking := [name for name in known if name not in held]:
        raise RecipeError(f"{what} lacks {', '.join(lacking)}", EXAMPLE)
    return held


def _rates(data: object, kind: str) -> Rates:
    held = _fields(data, kind, Rates)
    gemv, gemm = (_number(held[name], f"{kind}.{name}") for name in ("gemv", "gemm"))
    if gemm < gemv:
        raise RecipeError(
            f"{kind}.gemm = {gemm:g} is less than {kind}.gemv = {gemv:g}",
            "On many rows at once arithmetic is at least as fast as on one.",
        )
    return Rates(gemv, gemm)


def _number(value: object, name: str) -> float:
    """Return a finite number above 0; YAML reads numbers such as 2e10 as words."""
    try:
        found = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        found = math.nan
    if math.isfinite(found) and found > 0:
        return found
    raise RecipeError(
        f"{name} = {value!r}; expected a number above 0 [{NUMBERS.get(name, '1/s')}]", EXAMPLE
    )


def _nbytes(term: Term) -> int:
    """Return the bytes that are read of a matrix: one stored sparse may run without its zeros."""
    bits, every = term.format.bits(term.shape), term.shape[0] * term.shape[1]
    if term.stored is not None and not not_worth_expanding(term):
        assert isinstance(term.format, Coded)
        zeros = every - term.stored.pattern.of_matrix(*term.shape)
        bits += every - zeros * term.format.element.bits  # a mask of one bit for each weight
    return bits // 8
