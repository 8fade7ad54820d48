"""A smaller model of the same family: the tensors of another configuration, cut from those of a source.

What is kept is told by axis; the table of axes (`roles`, `Site`) says where each axis lies. So a
method names indices, and no method knows how a family lays out its tensors.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from whet.model.architecture import Architecture
from whet.model.axes import Kept, positions, selected, sizes
from whet.model.config import Config
from whet.model.family import Family, find
from whet.model.roles import KEY, QUERY
from whet.model.site import Site
from whet.model.source import Source

Values = Mapping[str, Tensor]


def successor(config: Config, names: Collection[str], onward: Config) -> Architecture:
    """Return the architecture of a changed config, whose tensors are named as in the source."""
    old = find(config).architecture(config, names)
    new = find(onward).architecture(onward)
    return replace(new, prefix=old.prefix, stacked=old.stacked)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What stays of one block of a source.

    `kept`: the indices along its axes; those of one expert's channels are called "experts.3.ffn".
    `weights` (out, in) and `vectors` (biases and gains) have new values, by role, of full size:
    they are cut after.
    """

    layer: int
    kept: Kept = field(default_factory=dict[str, Tensor])
    weights: Values = field(default_factory=dict[str, Tensor])
    biases: Values = field(default_factory=dict[str, Tensor])
    gains: Values = field(default_factory=dict[str, Tensor])

    def axes(self, role: str) -> Kept:
        """Return what is kept of a linear's own axes."""
        if ".experts." not in role:
            return self.kept
        own = self.kept.get(f"experts.{role.split('.')[2]}.ffn")
        rest = {name: kept for name, kept in self.kept.items() if name != "ffn"}
        return rest if own is None else rest | {"ffn": own}


@dataclass(frozen=True, slots=True, eq=False)
class Cutting:
    """A source on its way to another configuration.

    Law: the cut model computes what the source does with all that is cut away set to zero, where
    nothing normalises over it.
    """

    source: Source
    family: Family
    old: Architecture
    new: Architecture

    @staticmethod
    def of(source: Source, onward: Config) -> "Cutting":
        """Return the cutting of a source to another config."""
        family = find(source.config)
        old = family.architecture(source.config, source.names())
        return Cutting(source, family, old, successor(source.config, source.names(), onward))

    def ends(self, piece: Piece) -> Iterator[tuple[str, Tensor]]:
        """Yield what stands outside the blocks: embedding, positions, last norm, head."""
        embed, head = self.family.embed_site(self.old), self.family.head_site(self.old)
        yield embed.tensor, self._matrix(embed, embed, piece)
        if self.old.position_offset is not None:
            name = f"{self.family.module(self.old, 'positions')}.weight"
            yield name, selected(self.source.tensor(name), 1, piece.kept.get("hidden"))
        if self.old.final_norm:
            module = self.family.module(self.old, "norm")
            yield from self._norm("norm", module, module, piece, "hidden")
        if not self.old.tied:
            yield head.tensor, self._matrix(head, head, piece)

    def block(self, number: int, piece: Piece) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of block `number` of the result."""
        stacks: dict[str, list[tuple[tuple[int, int], Tensor]]] = {}
        for site, old in self._pairs(number, piece):
            value = self._matrix(site, old, piece)
            if site.stack is None:
                yield site.tensor, value
            else:
                place = (site.stack.index, site.stack.start)
                stacks.setdefault(site.tensor, []).append((place, value))
            if site.bias:
                yield f"{site.module}.bias", self._bias(old, piece)
        for name, parts in stacks.items():
            yield name, _joined(parts)
        yield from self._rest(number, piece)

    def _pairs(self, number: int, piece: Piece) -> Iterator[tuple[Site, Site]]:
        """Yield each linear of a block of the result, and what it is cut from."""
        known = {site.role: site for site in self.family.block_sites(self.old, piece.layer)}
        kept = piece.kept.get("expert")
        for site in self.family.block_sites(self.new, number):
            role = site.role
            if kept is not None and ".experts." in role:
                mlp, experts, expert, name = role.split(".")
                role = f"{mlp}.{experts}.{int(kept[int(expert)])}.{name}"
            yield site, known[role]

    def _rest(self, number: int, piece: Piece) -> Iterator[tuple[str, Tensor]]:
        """Yield norms and the router."""
        old = self.family.block_norms(self.old, piece.layer)
        full = self.old.qk_norm == "full"
        axes = {"attn.q.norm": QUERY if full else "dim", "attn.k.norm": KEY if full else "dim"}
        for role, (module, _) in self.family.block_norms(self.new, number).items():
            axis = axes.get(role, "hidden")
            yield from self._norm(role, module, old[role][0], piece, axis)
        if self.old.sparse(piece.layer):
            value = self.source.tensor(self.family.router_tensor(self.old, piece.layer))
            value = selected(value, 0, piece.kept.get("expert"))
            name = self.family.router_tensor(self.new, number)
            yield name, selected(value, 1, piece.kept.get("hidden"))

    def _norm(
        self, role: str, module: str, old: str, piece: Piece, axis: str
    ) -> Iterator[tuple[str, Tensor]]:
        if not self.old.norm.affine:
            return
        where = positions(axis, sizes(self.old, self.old.ffn), piece.kept)
        value = piece.gains.get(role)
        value = self.source.tensor(f"{old}.weight") if value is None else value
        yield f"{module}.weight", selected(value, 0, where)
        if self.old.norm.kind == "layer":
            yield f"{module}.bias", selected(self.source.tensor(f"{old}.bias"), 0, where)

    def _matrix(self, site: Site, old: Site, piece: Piece) -> Tensor:
        """Return a weight of the result as it is stored."""
        value = piece.weights.get(old.role)
        if value is None:
            value = self.source.weight(old).planes["value"]
        extents, kept = self._extents(old), piece.axes(old.role)
        value = selected(value, 0, positions(old.out, extents, kept))
        value = selected(value, 1, positions(old.inp, extents, kept))
        return value.T if site.transposed else value

    def _bias(self, old: Site, piece: Piece) -> Tensor:
        value = piece.biases.get(old.role)
        value = self.source.tensor(f"{old.module}.bias") if value is None else value
        return selected(value, 0, positions(old.out, self._extents(old), piece.axes(old.role)))

    def _extents(self, site: Site) -> dict[str, int]:
        experts = self.old.experts
        if ".experts." in site.role and experts is not None:
            return sizes(self.old, experts.ffn)
        return sizes(self.old, self.old.ffn if site.layer is None else self.old.ffn_of(site.layer))


def _joined(parts: list[tuple[tuple[int, int], Tensor]]) -> Tensor:
    """Return the tensor that holds the matrices of all experts."""
    ordered = sorted(parts, key=lambda part: part[0])
    experts = sorted({place[0] for place, _ in ordered})
    rows = [torch.cat([v for place, v in ordered if place[0] == e]) for e in experts]
    return torch.stack(rows)
