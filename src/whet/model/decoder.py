"""A whole decoder, or its parts one at a time: embedding, blocks, head."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from whet.base.errors import FolderError
from whet.formats.keeping import Keeping
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.model.architecture import Architecture
from whet.model.block import Block, no_tap
from whet.model.cache import Cache
from whet.model.family import Family, find
from whet.model.linear import Linear
from whet.model.mlp import Tap
from whet.model.norm import Norm
from whet.model.site import Site
from whet.model.source import Source

SPAN = 1024  # rows of a coded table that are decoded at a time


class Embedding(nn.Module):
    """Tokens to vectors, with learned positions where a model has them."""

    positions: Tensor | None

    def __init__(
        self,
        arch: Architecture,
        site: Site,
        linear: Linear,
        positions: Tensor | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.arch, self.site, self.linear, self.name = arch, site, linear, name
        self.register_buffer("positions", positions)

    @property
    def linears(self) -> Mapping[str, Linear]:
        """The table, by role."""
        return {"embed": self.linear}

    @property
    def sites(self) -> tuple[Site, ...]:
        """What the table is called in the checkpoint."""
        return (self.site,)

    def extras(self) -> dict[str, Tensor]:
        """Return what is no linear weight, by the checkpoint's name."""
        return {} if self.positions is None else {f"{self.name}.weight": self.positions}

    def forward(
        self, tokens: Int64[Tensor, "batch time"], start: int = 0
    ) -> Float[Tensor, "batch time hidden"]:
        """Look tokens up; the first stands at position `start`."""
        hidden = looked_up(self.linear.weight, tokens.flatten()).unflatten(0, tokens.shape)
        hidden = hidden * self.arch.embedding_scale
        if self.positions is None:
            return hidden
        first = start + (self.arch.position_offset or 0)
        stop = first + tokens.shape[1]
        if stop > len(self.positions):
            raise FolderError(
                f"a sequence of {start + tokens.shape[1]} tokens is longer than "
                f"the {self.arch.context} positions that this model has learned",
                "Use shorter sequences.",
            )
        return hidden + self.positions[first:stop].float()


def looked_up(table: Weight, ids: Int64[Tensor, "tokens"]) -> Float[Tensor, "tokens hidden"]:
    """Return rows of a table in any format; of a coded one only the spans in need are decoded."""
    if isinstance(table.format, Plain):
        return table.planes["value"][ids].float()
    found, place = ids.unique(return_inverse=True)
    rows = torch.empty(len(found), table.shape[1])
    for start in (found // SPAN).unique().mul(SPAN).tolist():
        stop = min(start + SPAN, table.shape[0])
        mine = (found >= start) & (found < stop)
        rows[mine] = table.rows(start, stop).dense()[found[mine] - start]
    return rows[place]


class Head(nn.Module):
    """The last norm and the output weight: vectors to logits."""

    taps = ("head.in",)

    def __init__(
        self, arch: Architecture, site: Site, linear: Linear, norm: Norm | None, name: str = ""
    ) -> None:
        super().__init__()
        self.arch, self.site, self.linear, self.norm, self.name = arch, site, linear, norm, name

    @property
    def linears(self) -> Mapping[str, Linear]:
        """The output weight, by role."""
        return {"head": self.linear}

    @property
    def sites(self) -> tuple[Site, ...]:
        """What the output weight is called in the checkpoint."""
        return (self.site,)

    def extras(self) -> dict[str, Tensor]:
        """Return what is no linear weight, by the checkpoint's name."""
        parts = {} if self.norm is None else {"weight": self.norm.weight, "bias": self.norm.bias}
        return {f"{self.name}.{part}": x for part, x in parts.items() if x is not None}

    def forward(
        self, hidden: Float[Tensor, "*batch hidden"], tap: Tap | None = None
    ) -> Float[Tensor, "*batch vocab"]:
        """Return logits."""
        hidden = hidden if self.norm is None else self.norm(hidden)
        (tap or no_tap)("head.in", hidden)
        logits = self.linear(hidden)
        cap = self.arch.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)


class Model(nn.Module):
    """A decoder with all its blocks in memory."""

    def __init__(
        self, arch: Architecture, embedding: Embedding, blocks: Iterable[Block], head: Head
    ) -> None:
        super().__init__()
        self.arch, self.embedding, self.head = arch, embedding, head
        self.blocks = list(blocks)
        self.held = nn.ModuleList(self.blocks)

    def new_cache(self, keeping: Keeping | None = None) -> Cache:
        """Return an empty cache for one batch of sequences, kept as said, or as the model says."""
        rope = self.arch.rope
        changing = rope is not None and rope.kind == "longrope"
        bound = rope.trained if rope and changing else None
        return Cache(self.arch.windows, bound, keeping or self.arch.keeping)

    def forward(
        self, tokens: Int64[Tensor, "batch time"], cache: Cache | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        """Return the logits of the token after each; the tokens follow those in the cache."""
        return self.head(self.hidden(tokens, cache))

    def hidden(
        self, tokens: Int64[Tensor, "batch time"], cache: Cache | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """Return what the head reads."""
        if cache is None:
            return self._passed(tokens, None)
        due = cache.due(tokens)
        hidden = torch.cat([self._passed(some, cache) for some in cache.pieces(due)], 1)
        return hidden[:, due.shape[1] - tokens.shape[1] :]

    def states(
        self,
        tokens: Int64[Tensor, "batch time"],
        through: Callable[[Block, Tensor], Tensor] | None = None,
    ) -> list[Float[Tensor, "batch time hidden"]]:
        """Return what leaves each block, the embedding first; `through` computes a block."""
        found = [self.embedding(tokens)]
        for block in self.blocks:
            found.append(block(found[-1]) if through is None else through(block, found[-1]))
        return found

    def _passed(
        self, tokens: Int64[Tensor, "batch time"], cache: Cache | None
    ) -> Float[Tensor, "batch time hidden"]:
        """Return what the head reads of tokens that are computed at once."""
        hidden = self.embedding(tokens, cache.length if cache else 0)
        for block, held in zip(self.blocks, cache or [None] * len(self.blocks), strict=True):
            hidden = block(hidden, held)
        return hidden


def load(source: Source) -> Model:
    """Return the whole model of a source."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    first = embedding(source, family, arch)
    blocks = (block(source, family, arch, layer) for layer in range(arch.layers))
    last = head(source, family, arch, first if arch.tied else None)
    return Model(arch, first, blocks, last)


def embedding(source: Source, family: Family, arch: Architecture) -> Embedding:
    """Return the embedding alone."""
    site = family.embed_site(arch)
    if arch.position_offset is None:
        return Embedding(arch, site, _linear(source, site))
    name = family.module(arch, "positions")
    return Embedding(arch, site, _linear(source, site), source.tensor(f"{name}.weight"), name)


def block(source: Source, family: Family, arch: Architecture, layer: int) -> Block:
    """Return one block alone."""
    sites = family.block_sites(arch, layer)
    modules = {role: name for role, (name, _) in family.block_norms(arch, layer).items()}
    norms = {role: _norm(source, arch, name) for role, name in modules.items()}
    linears = {site.role: _linear(source, site) for site in sites}
    router = family.router(arch, layer)
    if router is None:
        return Block(arch, layer, sites, linears, norms, modules)
    names = modules | {"mlp.router": router}
    stored = source.tensor(family.router_tensor(arch, layer))
    return Block(arch, layer, sites, linears, norms, names, stored)


def head(source: Source, family: Family, arch: Architecture, tied: Embedding | None = None) -> Head:
    """Return the head alone; with `tied`, it shares the linear of that embedding."""
    site = family.head_site(arch)
    if tied is not None:
        linear = tied.linear
    else:
        linear = _linear(source, family.embed_site(arch) if arch.tied else site)
    name = family.module(arch, "norm")
    norm = _norm(source, arch, name) if arch.final_norm else None
    return Head(arch, site, linear, norm, name)


def _linear(source: Source, site: Site) -> Linear:
    bias = source.tensor(f"{site.module}.bias") if site.bias else None
    activation, scale = source.activation(site) or (None, None)
    return Linear(source.weight(site), bias, activation, scale)


def _norm(source: Source, arch: Architecture, module: str) -> Norm:
    if not arch.norm.affine:
        return Norm(arch.norm, None)
    bias = source.tensor(f"{module}.bias") if arch.norm.kind == "layer" else None
    return Norm(arch.norm, source.tensor(f"{module}.weight"), bias)
