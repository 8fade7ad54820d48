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

from whet.base.errors import StoppedError
from whet.base.quantity import Quantity
from whet.calibrate.hidden_states import MemoryBudget
from whet.formats.weight import Weight
from whet.model.site import Site
from whet.model.source import Source

Config = Mapping[str, Any]  # of config.json
Windows = Callable[[int, int], Int64[Tensor, "samples time"]]  # (samples, time)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a model pass works on.

    `teacher` is the model as the user gave it, `source` what the stages before have made of it.
    `windows` reads so many windows of so many tokens from the recipe's text, always the same ones;
    a text that is too short for them is read again from its beginning.
    `work` is a folder of the pass's own, in which it may keep what it needs to go on after a kill;
    it lasts until the stage is finished. `budget` is the memory that hidden states may take.
    """

    source: Source
    teacher: Source
    windows: Windows
    work: Path
    seed: int
    advance: Callable[[float, str], None]  # (share that is done, what is under way)
    stopped: Callable[[], bool]  # asked often; then save and raise StoppedError
    budget: MemoryBudget = field(default_factory=MemoryBudget)

    def heed(self, share: float, what: str) -> None:
        """Say how far the work is; raise StoppedError if it is to stop."""
        self.advance(share, what)
        if self.stopped():
            raise StoppedError(f"stopped at {what}", "Run the same command to go on.")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The tensors of the result, by the checkpoint's names, and what is known of it by site.

    `tensors` is read once, piece by piece; tensors that it leaves out are copied from the source
    where the new configuration still calls for them. `weights`, read once after `tensors`, are
    linears of codes that have changed; each is in the format that the source has it in.
    """

    tensors: Iterator[tuple[str, Tensor]]
    weights: Iterator[tuple[Site, Weight]] = field(default_factory=lambda: iter(()))
    facts: Mapping[str, Mapping[str, Quantity]] = field(
        default_factory=dict[str, Mapping[str, Quantity]]
    )
    fallbacks: Mapping[str, str] = field(default_factory=dict[str, str])


class ModelPass(ABC):
    """A method over a model; a frozen, keyword-only dataclass like `LinearPass`.

    `coded`: it also works on weights that a step before it has quantized, and leaves them so.
    `together`: all processes that `torchrun` has started run it, and leave the same.
    `tensorwise`: it changes each tensor by itself and reads no text, so any model will do.
    """

    name: ClassVar[str]
    coded: ClassVar[bool] = False
    together: ClassVar[bool] = False
    tensorwise: ClassVar[bool] = False

    def refuses(self, config: Config) -> str | None:
        """Return why a model of this config.json cannot be changed so; asked before work starts."""
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result. Law: known from the settings, before any work."""
        return config

    def stored(self, dtype: str) -> str:
        """Return the type of safetensors in which a tensor of this one is left."""
        return dtype

    @abstractmethod
    def run(self, task: Task) -> Outcome:
        """Return the changed model."""
