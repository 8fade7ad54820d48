"""Attention that sees only so far back (arXiv:2004.05150, §3.1)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from whet.model import fields
from whet.model.config import Config
from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(ModelPass):
    """Let attention see only the last tokens, in every block.

    A Llama whose linears have no biases becomes a Mistral, which is the same with a window. Keys
    and values of earlier tokens need not be kept.
    """

    name: ClassVar[str] = "window"

    tokens: int = field(metadata=says("how far back attention sees [token]"))

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.tokens < 1:
            raise ValueError("tokens must be at least 1")

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        family = find(config)
        arch = family.architecture(config)
        if family.name == "llama" and arch.biases:
            return "it is a Llama with biases, and Mistral, which has windows, knows none"
        if family.name != "llama" and fields.field(family.name, "window") is None:
            return f"the config.json of {family.name} knows no windows"
        if family.name == "gemma3":
            return "the blocks of Gemma 3 that see everything have rotary positions of their own"
        narrow = [width for width in arch.windows if width is not None and width <= self.tokens]
        if narrow:
            return f"it has blocks that see no further back than {narrow[0]} tokens already"
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        if family.name == "llama":
            return fields.as_mistral(config, self.tokens)
        changed: dict[str, Any] = dict(config) | {"sliding_window": self.tokens}
        if family.name in ("qwen2", "qwen3", "qwen3_moe"):
            changed |= {"use_sliding_window": True, "max_window_layers": 0}
        if "layer_types" in config or family.name == "gemma2":
            layers = family.architecture(config).layers
            changed["layer_types"] = ["sliding_attention"] * layers
        return changed

    def run(self, task: Task) -> Outcome:
        """Return the model as it is: only its configuration differs."""
        return Outcome(iter(()))
