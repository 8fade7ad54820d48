"""Windows of text in the order in which training reads them."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.seed import stream_seed


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads `batch` windows a step, all windows once before any is read again.

    Law: what a step reads depends on the windows, the seed and its number alone.
    """

    ids: Int64[Tensor, "samples time"]
    batch: int
    seed: int

    def numbers(self, step: int) -> Int64[Tensor, "batch"]:
        """Return which windows a step reads."""
        count = len(self.ids)
        places = torch.arange(step * self.batch, (step + 1) * self.batch)
        epochs = (places // count).unique().tolist()
        order = {epoch: self._order(epoch) for epoch in epochs}
        return torch.stack([order[int(i // count)][i % count] for i in places])

    def share(self, step: int, part: int, parts: int) -> Int64[Tensor, "some"]:
        """Return the windows of one of the equal parts that a step is made of."""
        return self.numbers(step).view(parts, -1)[part]

    def _order(self, epoch: int) -> Int64[Tensor, "samples"]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, f"epoch/{epoch}"))
        return torch.randperm(len(self.ids), generator=generator)
