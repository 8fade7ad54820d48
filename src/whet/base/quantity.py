"""Numbers that know their unit and how they were obtained."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured or computed number, e.g. `Quantity(0.004, "nat", "mean KL over tokens")`."""

    value: float
    unit: str
    how: str
