"""Which rows of which stored weights an operator multiplies by. Needs no torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from whet.model.site import Site
from whet.store.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Span:
    """`count` runs of `size` rows, the first at `start`, each `stride` after the one before."""

    start: int
    size: int
    stride: int = 0
    count: int = 1

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return self.size * self.count

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the first row and the one after the last, of each run."""
        for index in range(self.count):
            start = self.start + index * self.stride
            yield start, start + self.size

    def __str__(self) -> str:
        """Return e.g. `0:32`, or `8:16 ×4 every 24`."""
        first = f"{self.start}:{self.start + self.size}"
        return first if self.count == 1 else f"{first} ×{self.count} every {self.stride}"


@dataclass(frozen=True, slots=True)
class Gain:
    """A norm's gain, and bias if it has one, that a linear takes over: W·diag(g), b + W·β."""

    module: str
    offset: float = 0.0
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of the weight of one module, in the order of the outputs.

    `site` says where the weight is stored (and whether it has a bias, `{module}.bias`, of which the
    same rows are added); `fixed` is the static scale of the input and, after it, the zero point.
    """

    site: Site
    scheme: Scheme
    spans: tuple[Span, ...]
    fixed: tuple[float, ...] = ()
    gain: Gain | None = None

    @property
    def rows(self) -> int:
        """Outputs."""
        return sum(span.rows for span in self.spans)

    @property
    def cols(self) -> int:
        """Inputs."""
        return self.site.shape[1]

    @property
    def whole(self) -> bool:
        """Whether these are all rows of the module as they are stored."""
        return self.ranges() == ((0, self.site.shape[0]),)

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the stored rows as ranges, neighbours merged."""
        return tuple(_merged(run for span in self.spans for run in span.ranges()))


def whole(site: Site, scheme: Scheme, fixed: tuple[float, ...] = ()) -> Part:
    """Return all rows of a site."""
    return Part(site, scheme, (Span(0, site.shape[0]),), fixed)


def joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return parts laid end to end; neighbours of one module become one part.

    Law: the rows, one after the other, are those of the parts.
    """
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if last is not None and replace(last, spans=()) == replace(part, spans=()):
            found[-1] = replace(part, spans=_spans((*last.spans, *part.spans)))
        else:
            found.append(part)
    return tuple(found)


def _spans(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """Return the same rows with single runs that follow each other as one."""
    if any(span.count > 1 for span in spans):
        return spans
    runs = _merged(run for span in spans for run in span.ranges())
    return tuple(Span(start, stop - start) for start, stop in runs)


def _merged(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield runs of rows with those joined that follow each other."""
    ends = (*runs, None)
    first = ends[0][0] if ends[0] else 0
    for here, following in pairwise(ends):
        assert here is not None
        if following is None or following[0] != here[1]:
            yield first, here[1]
            first = following[0] if following else 0
