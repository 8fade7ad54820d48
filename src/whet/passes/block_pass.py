"""The contract of a method that looks at a whole block: equalisation, activation quantization."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.activation import Activation
from whet.formats.weight import Weight
from whet.model.block import Block

Observe = Callable[[str, tuple[type[Statistic], ...]], Stats]  # (tap, kinds) -> what was seen there


@runtime_checkable
class Flow(Protocol):
    """The calibration samples on both sides of a block; the observer of a pass that `follows`."""

    @property
    def samples(self) -> int:
        """How many there are."""
        ...

    @property
    def original(self) -> Block:
        """The block as it was; it must not be changed."""
        ...

    def entering(self, numbers: Int64[Tensor, "batch"]) -> Float[Tensor, "batch time hidden"]:
        """Return what enters the block now, after all that was done to the blocks before it."""
        ...

    def leaving(self, numbers: Int64[Tensor, "batch"]) -> Float[Tensor, "batch time hidden"]:
        """Return what leaves the original block in the original model."""
        ...

    def __call__(self, tap: str, kinds: tuple[type[Statistic], ...]) -> Stats:
        """Return what was seen at a tap."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What is to be done to a block; the executor does it and records the facts.

    `folds`: for a tap, what its channels are divided by; the linears that read it are multiplied.
    `activations`: for a role, the activation format of its input, with a static scale or None.
    `weights`: for a role, the weight that replaces its own, in the same format.
    """

    folds: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    activations: Mapping[str, tuple[Activation, Tensor | None]] = field(
        default_factory=dict[str, tuple[Activation, Tensor | None]]
    )
    weights: Mapping[str, Weight] = field(default_factory=dict[str, Weight])
    facts: Mapping[str, Mapping[str, Quantity]] = field(
        default_factory=dict[str, Mapping[str, Quantity]]
    )  # by role or tap
    fallbacks: Mapping[str, str] = field(default_factory=dict[str, str])  # by role or tap


class BlockPass(ABC):
    """A method over a block; a frozen, keyword-only dataclass like `LinearPass`."""

    name: ClassVar[str]
    follows: ClassVar[bool] = False  # reads the samples themselves: its observer is a `Flow`

    @property
    def everywhere(self) -> Activation | None:
        """What it does to linears in no block: the number format of their inputs. None: it takes none."""
        return None

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the statistics that `rewrite` observes, with these settings."""
        return ()

    @abstractmethod
    def rewrite(self, block: Block, roles: tuple[str, ...], observe: Observe) -> Change:
        """Return what is to be done to the linears of `roles`."""
