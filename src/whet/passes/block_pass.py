"""The contract of a method that looks at a whole block: equalisation, activation quantization."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.activation import Activation
from whet.model.block import Block

Observe = Callable[[str, tuple[type[Statistic], ...]], Stats]  # (tap, kinds) -> what was seen there


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What is to be done to a block; the executor does it and records the facts.

    `folds`: for a tap, what its channels are divided by; the linears that read it are multiplied.
    `activations`: for a role, the activation format of its input, with a static scale or None.
    """

    folds: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    activations: Mapping[str, tuple[Activation, Tensor | None]] = field(
        default_factory=dict[str, tuple[Activation, Tensor | None]]
    )
    facts: Mapping[str, Mapping[str, Quantity]] = field(
        default_factory=dict[str, Mapping[str, Quantity]]
    )  # by role or tap
    fallbacks: Mapping[str, str] = field(default_factory=dict[str, str])  # by role or tap


class BlockPass(ABC):
    """A method over a block; a frozen, keyword-only dataclass like `LinearPass`."""

    name: ClassVar[str]

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the statistics that `rewrite` observes, with these settings."""
        return ()

    @abstractmethod
    def rewrite(self, block: Block, roles: tuple[str, ...], observe: Observe) -> Change:
        """Return what is to be done to the linears of `roles`."""
