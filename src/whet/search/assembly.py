"""A model put together from a database, measured on held-out text without being saved.

Block by block from the source, each linear replaced by what the choice says; blocks are kept as far as
memory allows, and what was found of a choice always.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.formats.activation import Activation
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder
from whet.model.architecture import Architecture
from whet.model.block import Block
from whet.model.family import Family, find
from whet.model.linear import Linear
from whet.model.site import Site
from whet.model.source import Source
from whet.search.database import Database
from whet.search.option import Choice, Menu
from whet.search.rounding import rounding_of

HELD = 1 << 29  # blocks that are kept [byte]
TOKENS_AT_ONCE = 2048
ROWS = 512  # tokens whose predictions are held at a time


@dataclass(frozen=True, eq=False)
class Assembly:
    """The text on which choices are compared, and what is kept between them."""

    source: Source
    menus: Sequence[Menu]
    database: Database
    ids: Int64[Tensor, "samples time"]
    original: Source
    _blocks: "OrderedDict[tuple[int, ...], Block]" = field(default_factory=OrderedDict)
    _found: dict[tuple[int, ...], float] = field(default_factory=dict)

    @torch.no_grad()
    def kl(self, choice: Choice, samples: int | None = None) -> float:
        """Return the KL divergence of a choice from the original [nat per token].

        `samples` takes the first windows alone.
        Law: 0 where every unit stays as it is.
        """
        ids = self.ids[:samples]
        asked = (len(ids), *(choice[menu.unit.name] for menu in self.menus))
        if asked not in self._found:
            with arithmetic(usual(self._arch.hidden)):
                hidden = self._through(choice, ids)
                self._found[asked] = self._divergence(hidden, self._ideal[: len(ids)], choice)
        return self._found[asked]

    def forget(self) -> None:
        """Give back the memory of blocks; a choice that follows takes longer."""
        self._blocks.clear()

    @cached_property
    def _kind(self) -> tuple[Family, Architecture]:
        family = find(self.source.config)
        return family, family.architecture(self.source.config, self.source.names())

    @property
    def _arch(self) -> Architecture:
        return self._kind[1]

    @cached_property
    def _ideal(self) -> Float[Tensor, "samples time hidden"]:
        """What the head of the original reads."""
        family = find(self.original.config)
        arch = family.architecture(self.original.config, self.original.names())
        hidden = decoder.embedding(self.original, family, arch)(self.ids)
        size = max(1, TOKENS_AT_ONCE // self.ids.shape[1])
        for layer in range(arch.layers):
            block = decoder.block(self.original, family, arch, layer)
            hidden = torch.cat([block(part) for part in hidden.split(size)])
        return hidden

    @cached_property
    def _by_layer(self) -> Mapping[int | None, list[Menu]]:
        found: dict[int | None, list[Menu]] = {}
        for menu in self.menus:
            found.setdefault(menu.unit.layer, []).append(menu)
        return found

    def _through(self, choice: Choice, ids: Tensor) -> Tensor:
        """Return what the head reads."""
        hidden = self._embedding(choice)(ids)
        size = max(1, TOKENS_AT_ONCE // ids.shape[1])
        for layer in range(self._arch.layers):
            block = self._block(layer, choice)
            hidden = torch.cat([block(part) for part in hidden.split(size)])
        return hidden

    def _block(self, layer: int, choice: Choice) -> Block:
        """Return a block as a choice has it."""
        mine = self._by_layer.get(layer, [])
        key = (layer, *(choice[menu.unit.name] for menu in mine))
        if key not in self._blocks:
            made = {role: (weight, how) for role, weight, how in self._weights(mine, choice)}
            block = decoder.block(_Replaced(self.source, layer, made), *self._kind, layer)
            for linear in block.linears.values():
                linear.replace(self._plain(linear.weight))
            self._blocks[key] = block
            self._trim()
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def _trim(self) -> None:
        """Forget the blocks that were not used for longest, but for the last."""
        while len(self._blocks) > 1 and sum(map(_nbytes, self._blocks.values())) > HELD:
            self._blocks.popitem(last=False)

    def _weights(
        self, menus: Sequence[Menu], choice: Choice
    ) -> Iterator[tuple[str, Weight, Activation | None]]:
        """Yield the weights that a choice replaces, by role, and how what they read is rounded."""
        for menu in menus:
            level = menu.options[choice[menu.unit.name]].level
            for role, weight in self.database.weights(menu.unit, level).items():
                yield role, weight, rounding_of(level)

    def _plain(self, weight: Weight) -> Weight:
        """Return a weight decoded, so that it is decoded once."""
        fast = usual(self._arch.hidden) == "fast"
        dense = weight.dense()
        value = dense.bfloat16() if fast else dense
        return Weight(Plain("BF16" if fast else "F32"), {"value": value}, weight.shape)

    def _embedding(self, choice: Choice) -> decoder.Embedding:
        found = decoder.embedding(self.source, *self._kind)
        mine = [menu for menu in self._by_layer.get(None, ()) if menu.unit.table]
        for _, weight, _ in self._weights(mine, choice):
            found.linear.replace(weight)
        return found

    def _head(self, choice: Choice) -> decoder.Head:
        """Return the head as a choice has it."""
        tied = self._embedding(choice) if self._arch.tied else None
        head = decoder.head(self.source, *self._kind, tied)
        mine = [m for m in self._by_layer.get(None, ()) if self._arch.tied or not m.unit.table]
        as_it_is = ("head", head.linear.weight, None)
        _, weight, rounding = next(self._weights(mine, choice), as_it_is)
        head.linear = Linear(self._plain(weight), activation=rounding)
        return head

    @cached_property
    def _original_head(self) -> decoder.Head:
        family = find(self.original.config)
        arch = family.architecture(self.original.config, self.original.names())
        tied = decoder.embedding(self.original, family, arch) if arch.tied else None
        head = decoder.head(self.original, family, arch, tied)
        head.linear = Linear(self._plain(head.linear.weight))
        return head

    def _divergence(self, hidden: Tensor, ideal: Tensor, choice: Choice) -> float:
        """Return the mean KL divergence of what two heads say [nat]."""
        head, original = self._head(choice), self._original_head
        lost = 0.0
        pairs = zip(hidden.flatten(0, 1).split(ROWS), ideal.flatten(0, 1).split(ROWS), strict=True)
        for rows, rows_ideal in pairs:
            log, log_ideal = head(rows).log_softmax(-1), original(rows_ideal).log_softmax(-1)
            lost += float((log_ideal.exp() * (log_ideal - log)).double().sum())
        return lost / (hidden.shape[0] * hidden.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Replaced:
    """A source in which some linears of a block are others; those that they replace are not read."""

    source: Source
    layer: int
    made: Mapping[str, tuple[Weight, Activation | None]]  # by role

    @property
    def config(self) -> Mapping[str, Any]:
        return self.source.config

    def names(self) -> Collection[str]:
        return self.source.names()

    def tensor(self, name: str) -> Tensor:
        return self.source.tensor(name)

    def weight(self, site: Site) -> Weight:
        mine = self._mine(site)
        return self.source.weight(site) if mine is None else mine[0]

    def activation(self, site: Site) -> tuple[Activation, Tensor | None] | None:
        mine = self._mine(site)
        if mine is None:
            return self.source.activation(site)
        return None if mine[1] is None else (mine[1], None)

    def _mine(self, site: Site) -> tuple[Weight, Activation | None] | None:
        return self.made.get(site.role) if site.layer == self.layer else None


def _nbytes(block: Block) -> int:
    """Return how much memory a block takes [byte]."""
    return sum(buffer.nbytes for buffer in block.buffers())
