"""gpt-oss's experts: `T_blocks` [expert, out, groups, 16] and `T_scales` [expert, out, groups].

A byte holds two codes of e2m1, the low one first; 32 weights share a power of two (OCP MXFP4). The
plain tensor T is [expert, in, out], as transformers makes it
(`integrations/mxfp4.py`, `convert_moe_packed_tensors`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from whet.store.dialects.dialect import Held
from whet.store.sources.floats import FP4, nibbles, powers
from whet.store.sources.source import (
    Config,
    Numbers,
    Quantized,
    SourceDialect,
    array,
    expect,
    modules,
)

BYTES = 16  # of a block


@dataclass(frozen=True, slots=True)
class Mxfp4Weight(Quantized):
    """The weights of all experts of a block."""

    def dense(self) -> Numbers:
        """Return the values, an expert at a time."""
        blocks, scales = (array(self.held, name, "U8").data for name in self.uses)
        found = np.empty(self.shape, np.float32)
        for expert in range(len(found)):
            values = FP4[nibbles(blocks[expert])] * powers(scales[expert])[..., None]
            found[expert] = values.reshape(self.shape[2], self.shape[1]).T
        return found


class Mxfp4(SourceDialect):
    """Reads MXFP4 of gpt-oss."""

    name = "mxfp4"

    def describe(self, config: Config) -> str:
        """Return `mxfp4`."""
        return self.name

    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the stacks that have blocks and scales."""
        for name in modules(held, "_blocks"):
            uses = (f"{name}_blocks", f"{name}_scales")
            shape = array(held, uses[0], "U8").shape
            expect(held, uses[0], shape[3:], (BYTES,))
            expect(held, uses[1], array(held, uses[1], "U8").shape, shape[:3])
            experts, out, groups, _ = shape
            yield Mxfp4Weight(held, name, uses, (experts, groups * 2 * BYTES, out))
