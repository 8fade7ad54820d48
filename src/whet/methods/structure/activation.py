"""Another nonlinearity: with ReLU, most channels are zero for a token (arXiv:2310.04564, §3)."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from whet.model import fields
from whet.model.config import Config
from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

WORDS = {"relu": "relu", "silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(ModelPass):
    """Replace the nonlinearity of the feed-forward layers; what it costs is for training to win back."""

    name: ClassVar[str] = "activation"

    to: Literal["relu", "silu", "gelu", "gelu_tanh"] = field(
        default="relu", metadata=says("the new nonlinearity")
    )

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        has = find(config).architecture(config).activation
        return f"its nonlinearity is {self.to} already" if has == self.to else None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        return fields.resized(config, find(config).name, activation=WORDS[self.to])

    def run(self, task: Task) -> Outcome:
        """Return the model as it is: only its configuration differs."""
        return Outcome(iter(()))
