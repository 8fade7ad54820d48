"""Numbers that know their unit and how they were obtained."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured or computed number, e.g. `Quantity(0.004, "nat", "mean KL over tokens")`.

    The value is a float whatever was given, so that records read back equal those written.
    """

    value: float | int
    unit: str
    how: str

    def __post_init__(self) -> None:
        """Convert counts."""
        object.__setattr__(self, "value", float(self.value))
