"""What an engine asks of whatever computes: logits, one piece of a sequence at a time. Torch-free.

Two things compute: `native` (`whet.runtime.native`) and `reference` (`whet.runtime.reference`).
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Choice = Literal["auto", "native", "reference"]
Kernels = Literal["auto", "require"]
Inputs = Literal["int16", "int8"]  # of integer weights, where the folder does not say
Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


@runtime_checkable
class Executor(Protocol):
    """A model in memory.

    Law: however a sequence is cut into steps, its logits agree within the rounding of float32.
    """

    @property
    def name(self) -> str:
        """`native` or `reference`."""
        ...

    @property
    def vocab(self) -> int:
        """Number of logits."""
        ...

    @property
    def context(self) -> int:
        """The longest sequence [token]."""
        ...

    @property
    def threads(self) -> int:
        """How many threads compute."""
        ...

    @property
    def density(self) -> float:
        """Bytes of weights that are read for each that is stored: kernels may pack them anew."""
        ...

    @property
    def notes(self) -> Mapping[str, str]:
        """What a record of a measurement says of it besides."""
        ...

    def new_cache(self) -> Any:  # noqa: ANN401 (each executor has its own kind)
        """Return the memory of one sequence, empty."""
        ...

    def step(self, tokens: Ids, cache: Any, wanted: int = 1) -> Logits:  # noqa: ANN401
        """Take in tokens that follow those in the cache; return a row of logits for each wanted.

        These are the logits after the last `wanted` of the tokens, (wanted, vocab).
        """
        ...

    @property
    def remembers(self) -> str | None:
        """Why `forget` cannot be asked for; None where it can."""
        ...

    def forget(self, cache: Any, length: int) -> None:  # noqa: ANN401
        """Keep the first `length` tokens of a sequence alone, as if those after had not been there."""
        ...
