"""The contract of a method that needs the whole model: structure, distillation, recovery.

Consecutive passes over linears and blocks are one stage, which streams; a model pass is a stage of
its own. A stage reads the folder that the stage before has left and writes one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int64
from torch import Tensor

from whet.base.quantity import Quantity
from whet.formats.spec import Format
from whet.formats.weight import Weight
from whet.model.site import Site
from whet.model.source import Source

Config = Mapping[str, Any]  # of config.json
Windows = Callable[[int, int], Int64[Tensor, "samples time"]]  # (samples, time)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a model pass works on.

    `teacher` is the model as the user gave it, `source` what the stages before have made of it.
    `windows` reads so many windows of so many tokens from the recipe's text, always the same ones.
    `work` is a folder of the pass's own, in which it may keep what it needs to go on after a kill;
    it lasts until the stage is finished.
    """

    source: Source
    teacher: Source
    windows: Windows
    work: Path
    seed: int
    advance: Callable[[float, str], None]  # (share that is done, what is under way)
    stopped: Callable[[], bool]  # asked often; then save and raise StoppedError


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The tensors of the result, by the checkpoint's names, and what is known of it by site.

    `tensors` is read once, piece by piece; tensors that it leaves out are copied from the source
    where the new configuration still calls for them. `weights`, read once after `tensors`, are the
    linears that leave in the format which `ModelPass.promised` tells of their site.
    """

    tensors: Iterator[tuple[str, Tensor]]
    weights: Iterator[tuple[Site, Weight]] = field(default_factory=lambda: iter(()))
    facts: Mapping[str, Mapping[str, Quantity]] = field(
        default_factory=dict[str, Mapping[str, Quantity]]
    )
    fallbacks: Mapping[str, str] = field(default_factory=dict[str, str])


class ModelPass(ABC):
    """A method over a model; a frozen, keyword-only dataclass like `LinearPass`."""

    name: ClassVar[str]

    def refuses(self, config: Config) -> str | None:
        """Return why a model of this config.json cannot be changed so; asked before work starts."""
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result. Law: known from the settings, before any work."""
        return config

    def promised(self, site: Site, stored: Format) -> Format:
        """Return the format of a linear in the result, from the one that the source has it in.

        Law: known from the settings, before any work.
        """
        return stored

    @abstractmethod
    def run(self, task: Task) -> Outcome:
        """Return the changed model."""
