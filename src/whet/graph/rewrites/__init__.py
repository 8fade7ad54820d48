"""Rewrites of graphs, one file each, and the order in which they are made. Needs no torch."""

from collections.abc import Iterable, Iterator

from whet.graph.ir import Graph
from whet.graph.rewrites.drop_dead import DROP_DEAD
from whet.graph.rewrites.fold_gains import FOLD_GAINS
from whet.graph.rewrites.fuse_cache import FUSE_CACHE
from whet.graph.rewrites.fuse_inputs import FUSE_INPUTS
from whet.graph.rewrites.fuse_residual import FUSE_RESIDUAL
from whet.graph.rewrites.join_gate_up import JOIN_GATE_UP
from whet.graph.rewrites.join_qkv import JOIN_QKV
from whet.graph.rewrites.quantize_once import QUANTIZE_ONCE
from whet.graph.rewrites.reorder import REORDER
from whet.graph.rewrites.rewrite import Rewrite
from whet.graph.rewrites.wanted_rows import WANTED_ROWS

PIPELINE: tuple[Rewrite, ...] = (
    JOIN_QKV,
    JOIN_GATE_UP,
    FOLD_GAINS,
    WANTED_ROWS,
    QUANTIZE_ONCE,
    FUSE_RESIDUAL,
    FUSE_INPUTS,
    FUSE_CACHE,
    REORDER,
    DROP_DEAD,
)


def history(
    graph: Graph, rewrites: Iterable[Rewrite] = PIPELINE
) -> Iterator[tuple[Rewrite, Graph]]:
    """Yield each rewrite with the graph after it."""
    for rewrite in rewrites:
        graph = rewrite(graph)
        yield rewrite, graph


def rewritten(graph: Graph, rewrites: Iterable[Rewrite] = PIPELINE) -> Graph:
    """Return the graph after all rewrites."""
    for rewrite in rewrites:
        graph = rewrite(graph)
    return graph
