"""Plain numbers of one type: an ordinary Hugging Face folder of any source, GGUF and quantized ones.

bfloat16 is float32 with 8 bits of significand, rounded to nearest even (Kalamkar et al.,
arXiv:1905.12322, §2).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from whet.base.errors import NumericalError
from whet.base.quantity import Quantity
from whet.model.config import Config
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

Dtype = Literal["bf16", "f16", "f32"]
TYPES: Mapping[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
}
WORDS = ("dtype", "torch_dtype")  # of config.json, of transformers 5 and 4
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(ModelPass):
    """Store every number of the model as bf16, f16 or f32, rounded to nearest (ties to even).

    Codes of quantized sources become the numbers that they stand for. Integers stay as they are.
    """

    name: ClassVar[str] = "plain"
    tensorwise: ClassVar[bool] = True

    dtype: Dtype = field(default="bf16", metadata=says("what numbers are stored in"))

    def __post_init__(self) -> None:
        """Refuse other types."""
        if self.dtype not in TYPES:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(TYPES)}")

    def stored(self, dtype: str) -> str:
        """Return the type that a tensor of this one becomes."""
        return self.dtype.upper() if dtype in FLOATS else dtype

    def config(self, config: Config) -> Config:
        """Return the config.json with the type that numbers are stored in now."""
        word = str(TYPES[self.dtype]).removeprefix("torch.")
        found = _typed(config, word)
        return found if any(key in found for key in WORDS) else {**found, WORDS[0]: word}

    def run(self, task: Task) -> Outcome:
        """Return the tensors in the new type, one after the other, and how many numbers changed."""
        facts: dict[str, Mapping[str, Quantity]] = {}
        return Outcome(self._converted(task, facts), facts=facts)

    def _converted(
        self, task: Task, facts: dict[str, Mapping[str, Quantity]]
    ) -> Iterator[tuple[str, Tensor]]:
        names = sorted(task.source.names())
        changed = count = 0
        for index, name in enumerate(names):
            task.heed(index / len(names), name)
            before = task.source.tensor(name)
            if not before.is_floating_point():
                continue
            after = before.to(TYPES[self.dtype])
            _refuse_overflow(name, before, after, self.dtype)
            count += before.numel()
            changed += int((after.to(before.dtype) != before).sum())
            yield name, after
        facts[""] = {
            "changed": Quantity(changed, "1", f"numbers that {self.dtype} rounds to another value"),
            "numbers": Quantity(count, "1", "numbers that were stored anew, codes decoded"),
        }


def _typed(config: Config, word: str) -> dict[str, Any]:
    """Return a configuration with its types replaced, those of its parts too."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in WORDS and isinstance(value, str):
            found[key] = word
        else:
            inner = isinstance(value, dict)
            found[key] = _typed(cast("Config", value), word) if inner else value
    return found


def _refuse_overflow(name: str, before: Tensor, after: Tensor, dtype: str) -> None:
    """Raise if a finite number is beyond the largest that a type has."""
    beyond = after.isinf() & before.isfinite()
    if bool(beyond.any()):
        raise NumericalError(
            f"{name} has {int(beyond.sum())} numbers that {dtype} cannot hold: the largest is "
            f"{float(before[beyond].abs().max()):g}, the limit {torch.finfo(after.dtype).max:g}",
            "Use bf16 or f32 there: --set plain.dtype=bf16.",
        )
