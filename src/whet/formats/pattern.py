"""Which weights of a matrix stay: patterns as values, and the size of their masks. Needs no torch.

    2:4             of every 4 inputs of a row, 2 stay (a shorter last group keeps at most 2)
    sparse50        every row loses half of its inputs, wherever they are
    sparse50-tensor the matrix loses half of its weights, wherever they are

The count is part of the name, so that the exact size of a weight is known before any work.
A mask is stored as one bit for each weight, the first input lowest, or, for n:m up to 8, as the
number of each group's pattern among the C(m, n) that there are, where that takes fewer bits.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import ceil, comb, floor

from whet.base.errors import RecipeError

WIDEST = 64  # inputs of a group of n:m
NUMBERED = 8  # the widest group whose patterns are numbered


@dataclass(frozen=True, slots=True)
class Within:
    """`kept` of every `group` inputs of a row stay: n:m."""

    kept: int
    group: int

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not 0 < self.kept < self.group <= WIDEST:
            raise RecipeError(
                f"the pattern {self.kept}:{self.group} keeps {self.kept} of {self.group} weights",
                f"n:m keeps n of m: n is 1 or more and below m, and m is at most {WIDEST}; e.g. 2:4",
            )

    def of_row(self, inputs: int) -> int | None:
        """Return how many inputs of a row stay."""
        whole, rest = divmod(inputs, self.group)
        return whole * self.kept + min(self.kept, rest)

    def of_matrix(self, rows: int, inputs: int) -> int:
        """Return how many weights of a matrix stay."""
        return rows * (self.of_row(inputs) or 0)

    def unfit(self, inputs: int) -> str | None:
        """Return why rows of `inputs` are not pruned so, or None."""
        if inputs % self.group:
            return f"{inputs} inputs do not divide by the {self.group} of {self}"
        return None

    @property
    def number_bits(self) -> int:
        """Width of the number of a group's pattern [bit]; 0 where a bit for each weight is taken."""
        bits = (comb(self.group, self.kept) - 1).bit_length()
        return bits if self.group <= NUMBERED and bits < self.group else 0

    def mask_bytes(self, inputs: int) -> int:
        """Return the size of a row's mask [byte]."""
        groups = ceil(inputs / self.group)
        return ceil((groups * self.number_bits if self.number_bits else inputs) / 8)

    def __str__(self) -> str:
        """Return e.g. `2:4`."""
        return f"{self.kept}:{self.group}"


@dataclass(frozen=True, slots=True)
class Share:
    """`percent` of the inputs of every row are zero, or (`whole`) of the weights of the matrix."""

    percent: float
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not 0 <= self.percent < 100:
            raise RecipeError(
                f"a sparsity of {self.percent:g} %", "it is at least 0 and below 100, e.g. sparse50"
            )

    def of_row(self, inputs: int) -> int | None:
        """Return how many inputs of a row stay, or None where rows differ."""
        return None if self.whole else inputs - self._pruned(inputs)

    def of_matrix(self, rows: int, inputs: int) -> int:
        """Return how many weights of a matrix stay."""
        if self.whole:
            return rows * inputs - self._pruned(rows * inputs)
        return rows * (inputs - self._pruned(inputs))

    def unfit(self, inputs: int) -> str | None:
        """Return None: rows of any length are pruned so."""
        return None

    @property
    def number_bits(self) -> int:
        """Return 0: a bit is stored for each weight."""
        return 0

    def mask_bytes(self, inputs: int) -> int:
        """Return the size of a row's mask [byte]."""
        return ceil(inputs / 8)

    def _pruned(self, count: int) -> int:
        return floor(count * self.percent / 100 + 1e-9)

    def __str__(self) -> str:
        """Return e.g. `sparse50` or `sparse62.5-tensor`."""
        return f"sparse{str(self.percent).removesuffix('.0')}{'-tensor' if self.whole else ''}"


def share_of(count: int, stays: int, *, whole: bool = False) -> Share:
    """Return the pattern of the shortest name by which `stays` of `count` weights stay.

    Law: as many stay as was asked.
    """
    gone = count - stays
    for digits in range(16):
        percent = ceil(100 * gone * 10**digits / count) / 10**digits
        if percent < 100 and floor(count * percent / 100 + 1e-9) == gone:
            return Share(percent, whole)
    return Share(100 * gone / count, whole)


Pattern = Within | Share
NAMED = re.compile(
    r"((?P<kept>\d+):(?P<group>\d+)|sparse(?P<percent>\d+(\.\d+)?)(?P<whole>-tensor)?)"
)


def parse_pattern(text: str) -> Pattern | None:
    """Read a pattern's name; None where it is none. Law: `parse_pattern(str(p)) == p`."""
    found = NAMED.fullmatch(text.strip().lower())
    if found is None:
        return None
    if found["kept"] is not None:
        return Within(int(found["kept"]), int(found["group"]))
    return Share(float(found["percent"]), found["whole"] is not None)


@cache
def numbered(pattern: Within) -> tuple[int, ...]:
    """Return the masks of a group as bits, the first input lowest, in ascending order."""
    places = combinations(range(pattern.group), pattern.kept)
    return tuple(sorted(sum(1 << place for place in some) for some in places))
