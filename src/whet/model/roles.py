"""The linears and norms of a block, by role, with their shapes and axes. Needs no torch.

Axes in brackets are one axis made of several, the first outermost; `a+b` are laid end to end.
In "(kv 3 dim)" the three are a head's query, key and value.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from whet.formats.spec import Shape
from whet.model.architecture import Architecture

QUERY, KEY = "(kv group dim)", "(kv dim)"
JOINED = f"{QUERY}+{KEY}+{KEY}"
INTERLEAVED = "(kv 3 dim)"
INTO = frozenset({"attn.q", "attn.k", "attn.v", "attn.qkv"})  # linears that may have a bias
ATTENTION = INTO | {"attn.o"}
MLP = frozenset({"mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down"})


@dataclass(frozen=True, slots=True)
class Place:
    """A linear of a block before it has a name in a checkpoint; `expert` is its number, if any."""

    role: str
    shape: Shape
    out: str
    inp: str
    tap: str
    expert: int | None = None

    @property
    def name(self) -> str:
        """The role without the expert's number, as names of families are keyed."""
        return self.role if self.expert is None else f"mlp.experts.{self.role.rsplit('.', 1)[1]}"


def linears(arch: Architecture, layer: int) -> Iterator[Place]:
    """Yield the linears of a block in the order in which they run."""
    yield from _attention(arch)
    if arch.experts is None or not arch.sparse(layer):
        yield from _mlp(arch, "mlp", arch.ffn_of(layer), None)
        return
    for expert in range(arch.experts.count):
        yield from _mlp(arch, f"mlp.experts.{expert}", arch.experts.ffn, expert)


def _attention(arch: Architecture) -> Iterator[Place]:
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    if arch.qkv == "split":
        yield Place("attn.q", (query, arch.hidden), QUERY, "hidden", "attn.in")
        yield Place("attn.k", (key, arch.hidden), KEY, "hidden", "attn.in")
        yield Place("attn.v", (key, arch.hidden), KEY, "hidden", "attn.in")
    else:
        out = JOINED if arch.qkv == "joined" else INTERLEAVED
        yield Place("attn.qkv", (query + 2 * key, arch.hidden), out, "hidden", "attn.in")
    yield Place("attn.o", (arch.hidden, query), "hidden", QUERY, "attn.out")


def _mlp(arch: Architecture, role: str, ffn: int, expert: int | None) -> Iterator[Place]:
    first, middle = f"{role}.in", f"{role}.mid"
    if arch.gated and arch.gate_up == "joined":
        yield Place(f"{role}.gate_up", (2 * ffn, arch.hidden), "ffn+ffn", "hidden", first, expert)
    else:
        for name in ("gate", "up") if arch.gated else ("up",):
            yield Place(f"{role}.{name}", (ffn, arch.hidden), "ffn", "hidden", first, expert)
    yield Place(f"{role}.down", (arch.hidden, ffn), "hidden", "ffn", middle, expert)


def taps(arch: Architecture, layer: int) -> tuple[str, ...]:
    """Return the taps of a block in the order in which they are seen.

    A block with experts has "mlp.in", which the router reads, beside those of each expert.
    """
    seen = dict.fromkeys(place.tap for place in linears(arch, layer))
    names = list(seen)
    if arch.sparse(layer):
        names.insert(names.index("attn.out") + 1, "mlp.in")
    return tuple(names)


def norms(arch: Architecture) -> Iterator[tuple[str, int]]:
    """Yield the norms of a block and their widths [channel]."""
    yield from ((role, arch.hidden) for role in arch.norms)
    if arch.qk_norm != "none":
        heads, kv_heads = (arch.heads, arch.kv_heads) if arch.qk_norm == "full" else (1, 1)
        yield "attn.q.norm", heads * arch.head_dim
        yield "attn.k.norm", kv_heads * arch.head_dim
