"""What a code of a scalar format means: element types as values. Needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Integer:
    """Evenly spaced levels: two's complement, or unsigned with a zero point."""

    bits: int

    def __str__(self) -> str:
        """Return e.g. `int4`."""
        return f"int{self.bits}"


@dataclass(frozen=True, slots=True)
class Minifloat:
    """A sign, `exponent` and `mantissa` bits, subnormals; the code is the bit pattern."""

    exponent: int
    mantissa: int

    @property
    def bits(self) -> int:
        """Width of a code [bit]."""
        return 1 + self.exponent + self.mantissa

    def __str__(self) -> str:
        """Return e.g. `fp8-e4m3`; the only 4-bit one is `fp4`."""
        return "fp4" if self.bits == 4 else f"fp{self.bits}-e{self.exponent}m{self.mantissa}"


@dataclass(frozen=True, slots=True)
class Quantile:
    """Levels that a normal distribution fills evenly, zero among them (NF4 and its kin)."""

    bits: int

    def __str__(self) -> str:
        """Return e.g. `nf4`."""
        return f"nf{self.bits}"


@dataclass(frozen=True, slots=True)
class Log:
    """Powers of a base with a sign, and zero; `base` None is searched and stored."""

    bits: int
    base: float | None = 2.0

    def __str__(self) -> str:
        """Return e.g. `log4`; the base is a suffix of the format's name."""
        return f"log{self.bits}"


@dataclass(frozen=True, slots=True)
class PowerSum:
    """Sums of two powers of two with a sign, and zero (APoT)."""

    bits: int

    def __str__(self) -> str:
        """Return e.g. `apot4`."""
        return f"apot{self.bits}"


@dataclass(frozen=True, slots=True)
class Learned:
    """Levels of the matrix, stored as f16: a table for each row, or one `shared`.

    `integers`: the levels of the one table are integers, stored as int8.
    """

    bits: int
    shared: bool = False
    integers: bool = False

    def __str__(self) -> str:
        """Return e.g. `codebook4`."""
        return f"codebook{self.bits}"


Element = Integer | Minifloat | Quantile | Log | PowerSum | Learned
MINIFLOATS = (Minifloat(4, 3), Minifloat(5, 2), Minifloat(3, 2), Minifloat(2, 3), Minifloat(2, 1))
WIDTHS: dict[type[Element], range] = {
    Integer: range(2, 9),
    Quantile: range(2, 9),
    Log: range(2, 9),
    PowerSum: range(3, 6),
    Learned: range(2, 9),
}  # how wide a code may be [bit]
