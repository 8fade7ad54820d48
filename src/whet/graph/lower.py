"""From a model's architecture to its graph: the plain one, nothing fused. Needs no torch.

Queries, keys and values are three linears, and so are gate and up two, however they are stored:
where one module holds several they are ranges of its rows.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from whet.formats.activation import Activation
from whet.formats.spec import Format
from whet.graph.ir import (
    LOGITS,
    TOKENS,
    Activate,
    Add,
    Attend,
    Cap,
    Embed,
    Expert,
    Experts,
    Gate,
    Graph,
    Kind,
    Last,
    Linear,
    Norm,
    Op,
    Rope,
    Store,
    Value,
)
from whet.graph.weights import Part, Span, whole
from whet.model.architecture import Architecture
from whet.model.family import Family, find
from whet.model.site import Site
from whet.store.scheme import Scheme

Stored = Callable[[Site], Part]


@runtime_checkable
class Formatted(Protocol):
    """A weight of some format."""

    @property
    def format(self) -> Format:
        """Its format."""
        ...


@runtime_checkable
class Source(Protocol):
    """A checkpoint, as far as lowering asks: `whet.store.contents.Contents`, or torch's."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` says."""
        ...

    def names(self) -> Collection[str]:
        """Return the names of all stored tensors."""
        ...

    def weight(self, place: Any, /) -> Formatted:  # noqa: ANN401 (a site)
        """Return a linear weight."""
        ...

    def activation(self, place: Any, /) -> tuple[Activation, Any] | None:  # noqa: ANN401 (a site)
        """Return how the input of a linear is quantized, and its scale where that is fixed."""
        ...


@runtime_checkable
class Described(Protocol):
    """A checkpoint that knows formats without reading weights."""

    def format(self, place: Any, /) -> Format:  # noqa: ANN401 (a site)
        """Return the format of a linear weight."""
        ...


def lowered(source: Source) -> Graph:
    """Return the graph of a saved model."""
    family = find(source.config)
    return lower(family, family.architecture(source.config, source.names()), parts_of(source))


def parts_of(source: Source) -> Stored:
    """Return what says how a source has stored each module."""

    def stored(site: Site) -> Part:
        activation, scale = source.activation(site) or (None, None)
        fixed: tuple[float, ...] = () if scale is None else tuple(scale.data.tolist())
        format_ = (
            source.format(site) if isinstance(source, Described) else source.weight(site).format
        )
        return whole(site, Scheme(format_, activation), fixed)

    return stored


def lower(family: Family, arch: Architecture, stored: Stored) -> Graph:
    """Return the graph of a model whose modules are `stored` as that says."""
    draft = _Draft(family, arch, stored)
    hidden = _embedding(draft)
    for layer in range(arch.layers):
        hidden = _Block(draft, layer).lowered(hidden)
    _head(draft, hidden)
    return Graph(tuple(draft.ops), draft.values)


@dataclass(slots=True)
class _Draft:
    """A graph in the making."""

    family: Family
    arch: Architecture
    stored: Stored
    ops: list[Op] = field(default_factory=list[Op])
    values: dict[str, Value] = field(default_factory=lambda: {TOKENS: Value(TOKENS, 1, kind="ids")})

    def add(self, op: Op, width: int, kind: Kind = "float") -> str:
        """Append an operator that writes one value of some width."""
        (name,) = op.writes
        self.ops.append(op)
        self.values[name] = Value(name, width, "wanted" if isinstance(op, Last) else "tokens", kind)
        return name

    def norm(self, x: str, out: str, module: str, heads: int = 1) -> str:
        """Append a norm of the model's kind."""
        kind = self.arch.norm
        name = module if kind.affine else None
        op = Norm(x, out, kind.kind, kind.eps, name, kind.offset, heads)
        return self.add(op, self.values[x].width)

    def linear(self, x: str, out: str, *parts: Part) -> str:
        """Append a linear."""
        return self.add(Linear(x, out, parts), sum(part.rows for part in parts))


def _embedding(draft: _Draft) -> str:
    family, arch = draft.family, draft.arch
    part = draft.stored(family.embed_site(arch))
    learned = arch.position_offset is not None
    positions = f"{family.module(arch, 'positions')}.weight" if learned else None
    offset = arch.position_offset or 0
    op = Embed(TOKENS, "hidden", part, arch.embedding_scale, positions, offset)
    return draft.add(op, arch.hidden)


def _head(draft: _Draft, hidden: str) -> None:
    family, arch = draft.family, draft.arch
    if arch.final_norm:
        hidden = draft.norm(hidden, "head.in", family.module(arch, "norm"))
    site = family.embed_site(arch) if arch.tied else family.head_site(arch)
    logits = draft.linear(hidden, "head.out", draft.stored(site))
    if arch.logit_cap is not None:
        logits = draft.add(Cap(logits, "head.capped", arch.logit_cap), arch.vocab)
    draft.add(Last(logits, LOGITS), arch.vocab)


class _Block:
    """One block, on its way into a draft; its values are named `{layer}.…`."""

    def __init__(self, draft: _Draft, layer: int) -> None:
        self.draft, self.layer = draft, layer
        self.family, self.arch = draft.family, draft.arch
        self.sites = {site.role: site for site in self.family.block_sites(self.arch, layer)}
        self.norms = self.family.block_norms(self.arch, layer)

    def lowered(self, hidden: str) -> str:
        """Append the block; return the residual stream after it."""
        mixed = self._attention(self._norm("attn.pre", hidden, "attn.in"))
        mixed = self._norm("attn.post", mixed, "attn.post")
        middle = self._add(hidden, mixed, "middle")
        middle = self._norm("attn.sum", middle, "middle.normed")
        read = hidden if self.arch.parallel else middle
        fed = self._mlp(self._norm("mlp.pre", read, "mlp.in"))
        fed = self._norm("mlp.post", fed, "mlp.post")
        return self._norm("mlp.sum", self._add(middle, fed, "hidden"), "hidden.normed")

    def _name(self, name: str) -> str:
        return f"{self.layer}.{name}"

    def _norm(self, role: str, x: str, out: str, heads: int = 1) -> str:
        if role not in self.norms:
            return x
        return self.draft.norm(x, self._name(out), self.norms[role][0], heads)

    def _add(self, a: str, b: str, out: str) -> str:
        return self.draft.add(Add(a, b, self._name(out)), self.arch.hidden)

    def _linear(self, x: str, role: str, out: str) -> str:
        return self.draft.linear(x, self._name(out), self.draft.stored(self.sites[role]))

    def _attention(self, x: str) -> str:
        arch = self.arch
        q, k, v = (
            self.draft.linear(x, self._name(f"attn.{name}"), part)
            for name, part in zip("qkv", self._projections(), strict=True)
        )
        q, k = self._turned(q, "q", arch.heads), self._turned(k, "k", arch.kv_heads)
        window = arch.windows[self.layer]
        kept = self._name("cache")
        store = Store(k, v, kept, self.layer, arch.kv_heads, arch.head_dim, window)
        attend = Attend(
            q,
            self.draft.add(store, 0, "cache"),
            self._name("attn.out"),
            self.layer,
            arch.heads,
            arch.kv_heads,
            arch.head_dim,
            arch.scale_of(self.layer),
            window,
            arch.attention_cap,
        )
        mixed = self.draft.add(attend, arch.heads * arch.head_dim)
        return self._linear(mixed, "attn.o", "attn.o")

    def _turned(self, x: str, name: str, heads: int) -> str:
        """Append the norm of queries or keys, and their turns."""
        arch = self.arch
        pieces = heads if arch.qk_norm == "head" else 1
        x = self._norm(f"attn.{name}.norm", x, f"attn.{name}.normed", pieces)
        turns = arch.rope_of(self.layer)
        if turns is None:
            return x
        op = Rope(x, self._name(f"attn.{name}.turned"), heads, arch.head_dim, turns)
        return self.draft.add(op, heads * arch.head_dim)

    def _projections(self) -> tuple[Part, Part, Part]:
        """Return the rows that make queries, keys and values."""
        arch, stored = self.arch, self.draft.stored
        if arch.qkv == "split":
            q, k, v = (stored(self.sites[f"attn.{name}"]) for name in "qkv")
            return q, k, v
        dim, part = arch.head_dim, stored(self.sites["attn.qkv"])
        if arch.qkv == "interleaved":
            q, k, v = (Span(i * dim, dim, 3 * dim, arch.heads) for i in range(3))
        else:
            query, key = arch.heads * dim, arch.kv_heads * dim
            q, k, v = Span(0, query), Span(query, key), Span(query + key, key)
        return _rows(part, q), _rows(part, k), _rows(part, v)

    def _mlp(self, x: str) -> str:
        if self.arch.sparse(self.layer):
            return self._mixture(x)
        ffn, kind = self.arch.ffn_of(self.layer), self.arch.activation
        gate, up = self._gate_up("mlp")
        if gate is None:
            middle = self.draft.linear(x, self._name("mlp.up"), up)
            middle = self.draft.add(Activate(middle, self._name("mlp.mid"), kind), ffn)
        else:
            first = self.draft.linear(x, self._name("mlp.gate"), gate)
            second = self.draft.linear(x, self._name("mlp.up"), up)
            middle = self.draft.add(Gate(first, second, self._name("mlp.mid"), kind), ffn)
        return self._linear(middle, "mlp.down", "mlp.down")

    def _gate_up(self, role: str) -> tuple[Part | None, Part]:
        """Return the rows that make the gate, if there is one, and those beside it."""
        stored = self.draft.stored
        if f"{role}.gate_up" not in self.sites:
            gate = self.sites.get(f"{role}.gate")
            return gate and stored(gate), stored(self.sites[f"{role}.up"])
        part = stored(self.sites[f"{role}.gate_up"])
        half = part.rows // 2
        return _rows(part, Span(0, half)), _rows(part, Span(half, half))

    def _mixture(self, x: str) -> str:
        arch, draft = self.arch, self.draft
        assert arch.experts is not None
        experts: list[Expert] = []
        for number in range(arch.experts.count):
            role = f"mlp.experts.{number}"
            gate, up = self._gate_up(role)
            experts.append(Expert(up, draft.stored(self.sites[f"{role}.down"]), gate))
        op = Experts(
            x,
            self._name("mlp.down"),
            self.family.router_tensor(arch, self.layer),
            tuple(experts),
            arch.experts.active,
            arch.activation,
            arch.experts.normalize,
        )
        return draft.add(op, arch.hidden)


def _rows(part: Part, span: Span) -> Part:
    return replace(part, spans=(span,))
