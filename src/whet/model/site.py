"""Where the linear weights of a model are: their names, shapes, axes and inputs. Needs no torch."""

from dataclasses import dataclass

from whet.formats.spec import Shape


@dataclass(frozen=True, slots=True)
class Site:
    """One linear weight as the checkpoint stores it.

    `role` is the place in whet's own words, the same in all families ("attn.q", "mlp.down",
    "mlp.experts.3.up", "embed", "head"); `module` the checkpoint's ("model.layers.0.self_attn.q_proj").
    `out` and `inp` name the axes ("(kv group dim)", "hidden"); `tap` the activation that it reads.
    Sites with the same tap read the same activation, so they share its statistics.
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
