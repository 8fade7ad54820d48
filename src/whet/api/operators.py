"""A folder's operator graph, before and after each rewrite. Needs no torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whet.graph.ir import Graph, View
from whet.graph.lower import lowered
from whet.graph.memory import plan
from whet.graph.rewrites import history
from whet.graph.rewrites.fold_gains import refusals
from whet.graph.text import Section, sections
from whet.model.opened import opened
from whet.store.contents import Contents


@dataclass(frozen=True, slots=True)
class Stage:
    """The graph after one rewrite; `rewrite` is empty for the graph as it is lowered.

    planned, apart   bytes of buffers, shared where lives allow, and if each value had its own
    operators        how many there are, views of memory not counted; `kinds`: of each kind
    bound            of the rewrite: the largest difference of a logit, over the largest logit
    refused          why gains of norms were not folded, and how many
    """

    rewrite: str
    what: str
    bound: float
    operators: int
    planned: int
    apart: int
    kinds: Mapping[str, int]
    sections: tuple[Section, ...]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Operators:
    """The stages of a folder's graph; bytes are for steps of up to `rows` tokens, one logit row."""

    path: Path
    family: str
    rows: int
    stages: tuple[Stage, ...]


def operators(path: Path, rows: int) -> Operators:
    """Lower a folder and rewrite it."""
    from whet.model.family import find

    contents = Contents(opened(path), mapped=True)
    graph = lowered(contents)
    stages = [_stage("", "as it is lowered", 0.0, graph, rows)]
    for rewrite, found in history(graph):
        reasons = dict(refusals(found)) if rewrite.name == "fold-gains" else {}
        stages.append(_stage(rewrite.name, rewrite.what, rewrite.bound, found, rows, reasons))
    return Operators(path, find(contents.config).name, rows, tuple(stages))


def _stage(
    name: str,
    what: str,
    bound: float,
    graph: Graph,
    rows: int,
    refused: Mapping[str, int] | None = None,
) -> Stage:
    memory = plan(graph, rows)
    working = [op for op in graph.ops if not isinstance(op, View)]
    return Stage(
        name,
        what,
        bound,
        len(working),
        memory.nbytes,
        memory.alone,
        dict(Counter(op.name for op in working).most_common()),
        sections(graph),
        refused or {},
    )
