"""What a rewrite is: a graph in, a graph out that computes the same. Needs no torch.

Law: logits differ by at most `bound` of the largest one; 0 says bit for bit.
Law: `rewrite(rewrite(graph)) == rewrite(graph)`.
Law: the graph is sound after it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from whet.graph.ir import Graph

EXACT = 0.0
ROUNDING = 2e-5  # sums in float32, added up in another order, through all blocks


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rewrite by name. Where inputs are quantized, `bound` is met before they are."""

    name: str
    what: str
    bound: float
    apply: Callable[[Graph], Graph]

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph rewritten."""
        return self.apply(graph)
