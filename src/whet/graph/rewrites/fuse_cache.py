"""Norms of heads, rotary positions and the cache's write as one. Needs no torch.

Law: outputs are the same, bit for bit.
"""

from whet.graph.ir import Attend, Graph, Norm, Op, Rope, Store
from whet.graph.rewrites.order import fused
from whet.graph.rewrites.rewrite import EXACT, Rewrite


def fuse_cache(graph: Graph) -> Graph:
    """Fuse the turns of queries and keys with the cache's write that follows."""
    made = graph.writers()
    queries = {op.layer: op.q for op in graph.ops if isinstance(op, Attend)}
    groups: list[list[Op]] = []
    for op in graph.ops:
        if isinstance(op, Store) and op.layer in queries:
            chains = (_chain(made, name) for name in (queries[op.layer], op.k))
            members = [member for chain in chains for member in chain]
            members.sort(key=lambda member: isinstance(member, Rope))  # norms first
            groups.append([*members, op])
    return fused(graph, groups)


def _chain(made: dict[str, Op], name: str) -> list[Op]:
    """Return the norm of each head and the turn that make a value, as far as there are any."""
    op = made.get(name)
    if not isinstance(op, Rope):
        return []
    before = made.get(op.x)
    return [before, op] if isinstance(before, Norm) and before.heads > 1 else [op]


FUSE_CACHE = Rewrite(
    "fuse-cache", "norms of heads, rotary positions and the cache's write", EXACT, fuse_cache
)
