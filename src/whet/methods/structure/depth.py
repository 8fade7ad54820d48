"""Fewer layers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import Config, ModelPass, Outcome, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth(ModelPass):
    """Drop whole layers."""

    name: ClassVar[str] = "depth"

    layers: tuple[int, ...] = field(default=(), metadata=says("the layers to drop, from 0"))

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        depth = find(config).architecture(config).layers
        beyond = [layer for layer in self.layers if not 0 <= layer < depth]
        return f"it has layers 0 to {depth - 1}, no layer {beyond[0]}" if beyond else None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        return dict(config) | {"num_hidden_layers": config["num_hidden_layers"] - len(self.layers)}

    def run(self, task: Task) -> Outcome:
        """Return the changed model."""
        return Outcome(self._tensors(task))

    def _tensors(self, task: Task) -> Iterator[tuple[str, Tensor]]:
        family = find(task.source.config)
        arch = family.architecture(task.source.config, task.source.names())
        kept = [layer for layer in range(arch.layers) if layer not in self.layers]
        for name in task.source.names():
            for new, old in enumerate(kept):
                if f".{old}." in name:
                    yield name.replace(f".{old}.", f".{new}."), task.source.tensor(name)
