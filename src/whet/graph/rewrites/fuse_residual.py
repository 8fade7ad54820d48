"""The residual addition with the norms around it. Needs no torch.

What an attention or MLP returns is (normalised and) added to the residual stream, and the sum is
normalised for what reads it: the row is passed over once.

Law: outputs are the same, bit for bit.
"""

from whet.graph.ir import Add, Graph, Norm, Op
from whet.graph.rewrites.order import fused
from whet.graph.rewrites.rewrite import EXACT, Rewrite


def fuse_residual(graph: Graph) -> Graph:
    """Fuse every addition with the norms before and after it."""
    readers, made = graph.readers(), graph.writers()
    taken: set[int] = set()
    groups: list[list[Op]] = []
    for op in graph.ops:
        if isinstance(op, Add):
            before = [made[n] for n in op.reads if n in made and readers[n] == [op]]
            around = [*before, op, *readers[op.out]]
            group = [o for o in around if (o is op or isinstance(o, Norm)) and id(o) not in taken]
            taken |= {id(member) for member in group}
            groups.append(group)
    return fused(graph, groups)


FUSE_RESIDUAL = Rewrite(
    "fuse-residual", "the residual addition with the norms around it", EXACT, fuse_residual
)
