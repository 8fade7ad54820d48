"""Where the linear weights of a model are: their names, shapes, axes and inputs. Needs no torch."""

from dataclasses import dataclass
from typing import Any

from whet.formats.spec import Shape


@dataclass(frozen=True, slots=True)
class Stack:
    """Rows `start` to `stop` of one matrix in a 3-D tensor that holds those of all experts."""

    tensor: str
    index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Site:
    """One linear weight as the checkpoint stores it.

    `role` is the place in whet's own words, the same in all families ("attn.q", "mlp.down",
    "mlp.experts.3.up", "embed", "head"); `module` the checkpoint's, such as
    "model.layers.0.self_attn.q_proj".
    `out` and `inp` name the axes ("(kv group dim)", "hidden"); `tap` the activation that it reads.
    Sites with the same tap read the same activation, so they share its statistics.
    An expert stored with others in one tensor has a `stack`; its `module` is the name that it has
    in checkpoints which store experts apart.
    """

    role: str
    module: str
    shape: Shape
    out: str
    inp: str
    tap: str
    layer: int | None = None
    bias: bool = False
    transposed: bool = False  # stored as (in, out), like GPT-2's Conv1D
    tied: str | None = None  # the role of the site whose storage it shares
    head: str | None = None  # the module of the head that shares its storage
    stack: Stack | None = None  # stored in a part of a larger tensor

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds this weight in a checkpoint of plain numbers."""
        return self.stack.tensor if self.stack else f"{self.module}.weight"

    def oriented(self, stored: Any) -> Any:  # noqa: ANN401 (an array of numpy or of torch)
        """Return this weight, (out, in), as a view of the stored tensor: numpy's or torch's."""
        if self.stack:
            stored = stored[self.stack.index][self.stack.start : self.stack.stop]
        return stored.T if self.transposed else stored
