"""Graphs of tiny models, and values of a step that lie in planned memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.unit.model.tiny import CASES, STACKED, source, stacked
from tests.unit.model.tiny import tokens as tokens
from whet.formats.activation import Activation, parse_activation
from whet.formats.spec import parse
from whet.formats.weight import Weight, written
from whet.graph.executors.reference import Reference, Run, perform
from whet.graph.ir import TOKENS, Graph, steps
from whet.graph.memory import Plan, plan
from whet.model.site import Site
from whet.model.source import InMemory, Source

WRITTEN: dict[tuple[int, str, str], Weight] = {}  # of tiny models, which are never dropped
EVERY = [*CASES, *(f"{case}/stacked" for case in STACKED)]


def opened(case: str) -> InMemory:
    """Return a tiny model; `/stacked` with its experts in one tensor."""
    name, _, layout = case.partition("/")
    return stacked(name) if layout else source(name)


@dataclass(frozen=True)
class Compressed:
    """A model whose linears are in other formats: `schemes` by the end of their role.

    The longest end decides: "" is for all others. Each is a format, or "format, activation".
    """

    plain: InMemory
    schemes: Mapping[str, str]

    @property
    def config(self):
        return self.plain.config

    def names(self):
        return self.plain.names()

    def tensor(self, name: str) -> Tensor:
        return self.plain.tensor(name)

    def _scheme(self, site: Site) -> list[str]:
        ends = [end for end in self.schemes if site.role.endswith(end)]
        return self.schemes[max(ends, key=len)].split(", ") if ends else ["f32"]

    def weight(self, site: Site) -> Weight:
        name = self._scheme(site)[0]
        key = (id(self.plain), site.module, name)
        if key not in WRITTEN:
            WRITTEN[key] = written(self.plain.weight(site).dense(), parse(name))
        return WRITTEN[key]

    def activation(self, site: Site) -> tuple[Activation, Tensor | None] | None:
        words = self._scheme(site)[1:]
        if not words:
            return None
        found = parse_activation(words[0])
        return found, torch.tensor([0.05, 3.0][: 1 + found.affine]) if found.static else None


class Arena(dict[str, Tensor]):
    """A step's values in the memory that a plan gives them; what it gives none is kept apart."""

    def __init__(self, graph: Graph, planned: Plan, rows: int, wanted: int) -> None:
        super().__init__()
        self.graph, self.plan = graph, planned
        self.rows = {"tokens": rows, "wanted": wanted}
        self.memory = torch.full((planned.nbytes // 4,), torch.nan)

    def _lying(self, name: str) -> Tensor:
        slot, value = self.plan.slots[name], self.graph.values[name]
        assert slot.offset % 4 == 0
        size = (1, self.rows[value.rows], value.width)
        return self.memory.as_strided(size, (0, slot.stride, 1), slot.offset // 4)

    def __getitem__(self, name: str) -> Tensor:
        return self._lying(name).clone() if name in self.plan.slots else super().__getitem__(name)

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name in self.plan.slots:
            self._lying(name).copy_(value.clone())
        else:
            super().__setitem__(name, value)


@torch.inference_mode()
def in_memory(graph: Graph, held: Source, tokens: Tensor, wanted: list[int]) -> Tensor:
    """Return the logits of a step whose values share memory as planned."""
    count = tokens.shape[1]
    values = Arena(graph, plan(graph, count, len(wanted)), count, len(wanted))
    values[TOKENS] = tokens
    run = Run(Reference(graph, held), values, None, 0, torch.tensor(wanted))
    for op in graph.ops:
        for step in steps(op):
            perform(step, run)
    return values[graph.outputs[0]]
