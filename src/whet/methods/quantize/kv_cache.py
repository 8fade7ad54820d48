"""Keys and values of earlier tokens in fewer bits (KIVI, arXiv:2402.02750, §3; KVQuant, arXiv:2401.18079)."""

from dataclasses import dataclass, field
from typing import ClassVar

from whet.formats.keeping import KEEPINGS, KEY, Keeping
from whet.model.config import Config
from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache(ModelPass):
    """Say in config.json what whet keeps keys and values in; no weight changes.

    Other programs do not read it: they have flags of their own.
    """

    name: ClassVar[str] = "kv_cache"
    coded: ClassVar[bool] = True

    keep: Keeping = field(
        default="int8",
        metadata=says(
            "what keys and values are kept in: bf16, f16, f32, int8; kv4 or kv2 for 4 or 2 bits, keys "
            "by channel and values by token"
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        if self.keep not in KEEPINGS:
            raise ValueError(f"keep is {self.keep!r}, expected one of {', '.join(KEEPINGS)}")

    def refuses(self, config: Config) -> str | None:
        """Refuse models that whet has no blocks for."""
        find(config)
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        return {**config, KEY: self.keep}

    def run(self, task: Task) -> Outcome:
        """Return the model as it is: only its configuration differs."""
        return Outcome(iter(()))
