"""An order of the operators in which fewer bytes are alive at once. Needs no torch.

List scheduling: of the operators that may run next, the one that frees most and makes least. Taken
only where the peak falls, again until it falls no more.

Law: outputs are the same, bit for bit. Law: no more bytes are alive than before.
"""

from dataclasses import replace

from whet.graph.ir import Graph
from whet.graph.memory import plan
from whet.graph.rewrites.order import ordered
from whet.graph.rewrites.rewrite import EXACT, Rewrite

ROWS, WANTED = 64, 1


def reorder(graph: Graph) -> Graph:
    """Return the graph in the best order that is found."""
    best = plan(graph, ROWS, WANTED).alive
    while (found := _scheduled(graph)) != graph:
        alive = plan(found, ROWS, WANTED).alive
        if alive >= best:
            break
        graph, best = found, alive
    return graph


def _scheduled(graph: Graph) -> Graph:
    """Return the graph with operators first that leave little alive behind them."""
    uses = {name: len(found) for name, found in graph.readers().items()}

    def growth(number: int) -> tuple[int, ...]:
        op = graph.ops[number]
        born = sum(graph.values[name].width for name in op.writes)
        freed = sum(graph.values[name].width for name in {*op.reads} if uses[name] == 1)
        return born - freed, number

    ops = ordered(graph.ops, growth)
    return graph if ops is None else replace(graph, ops=ops)


REORDER = Rewrite("reorder", "fewer bytes alive at once", EXACT, reorder)
