"""One decoder block: norms, attention and MLP as the architecture says. Any family's."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from whet.model.architecture import Architecture
from whet.model.attention import attend, projected, separated, weights
from whet.model.cache import LayerCache
from whet.model.linear import Linear
from whet.model.mlp import Tap, activated, mixture
from whet.model.norm import Norm
from whet.model.roles import taps
from whet.model.rope import rotary
from whet.model.site import Site


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Where a forward pass stands: what the linears of a tap read, and the residual stream."""

    tap: str
    x: Float[Tensor, "batch time in"]
    stream: Float[Tensor, "batch time hidden"]


def no_tap(name: str, value: Tensor) -> None:
    """Ignore an activation."""


class Block(nn.Module):
    """A block and its weights; `sites` says what these are called in the checkpoint.

    `linears` by role; `norms` by role ("attn.pre", "attn.q.norm"); `names` gives the checkpoint's
    module of each norm and of the router.
    """

    router: Tensor | None

    def __init__(
        self,
        arch: Architecture,
        layer: int,
        sites: tuple[Site, ...],
        linears: Mapping[str, Linear],
        norms: Mapping[str, Norm],
        names: Mapping[str, str],
        router: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.layer, self.sites, self.names = arch, layer, sites, dict(names)
        self.linears, self.norms = dict(linears), dict(norms)
        self.held = nn.ModuleList([*linears.values(), *norms.values()])  # so that torch sees them
        self.register_buffer("router", router)
        self.taps = taps(arch, layer)
        rope = arch.rope_of(layer)
        self.rotary = None if rope is None else rotary(rope, arch.head_dim)

    def forward(
        self,
        hidden: Float[Tensor, "batch time hidden"],
        cache: LayerCache | None = None,
        tap: Tap | None = None,
        since: Moment | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Return the residual stream after this block; positions continue from the cache's.

        `tap(name, value)` sees the input of the linears of each tap before they run. Before that it
        sees, as "mlp.mid.stream", the residual stream there, and again as "mlp.mid.residual" where
        the linears' output is added to it as it is. With `since`, the block goes on from a tap.
        Law: going on from a tap gives what the whole block gives.
        """
        tap = tap or no_tap
        moment = since or Moment("attn.in", self._norm("attn.pre", hidden), hidden)
        if moment.tap == "attn.in":
            moment = Moment("attn.out", self._mixed(moment.x, cache, tap), moment.stream)
        if moment.tap == "attn.out":
            moment = self._attended(moment, tap)
        return self._fed(moment, tap)

    def attention(
        self, hidden: Float[Tensor, "batch time hidden"]
    ) -> Float[Tensor, "batch heads time time"]:
        """Return what share of its attention each head gives to each token, at each token."""
        q, k, _ = self._asked(self._norm("attn.pre", hidden), None)
        arch, layer = self.arch, self.layer
        return weights(q, k, arch.scale_of(layer), arch.windows[layer], arch.attention_cap)

    def extras(self) -> dict[str, Tensor]:
        """Return what is no linear weight, by the checkpoint's name: gains, biases, the router."""
        found = {f"{s.module}.bias": self.linears[s.role].bias for s in self.sites if s.bias}
        for role, norm in self.norms.items():
            found[f"{self.names[role]}.weight"] = norm.weight
            found[f"{self.names[role]}.bias"] = norm.bias
        if self.router is not None:
            found[f"{self.names['mlp.router']}.weight"] = self.router
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def _norm(self, role: str, x: Tensor) -> Tensor:
        return self.norms[role](x) if role in self.norms else x

    def _mixed(self, x: Tensor, cache: LayerCache | None, tap: Tap) -> Tensor:
        """Return what attention makes of its input, before the output projection."""
        tap("attn.in", x)
        q, k, v = self._asked(x, cache)
        scale, window = self.arch.scale_of(self.layer), self.arch.windows[self.layer]
        return attend(q, k, v, scale, window, self.arch.attention_cap)

    def _asked(self, x: Tensor, cache: LayerCache | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of heads, at their positions."""
        q, k, v = projected(self.arch, self.linears, x)
        q, k = self._heads(q, "attn.q.norm"), self._heads(k, "attn.k.norm")
        return self._placed(q, k, separated(v, self.arch.head_dim), cache)

    def _attended(self, moment: Moment, tap: Tap) -> Moment:
        """Add the output of attention to the stream, and read what the MLP reads."""
        hidden = moment.stream
        self._announce(moment, tap, direct="attn.post" not in self.norms)
        mixed = hidden + self._norm("attn.post", self.linears["attn.o"](moment.x))
        mixed = self._norm("attn.sum", mixed)
        read = hidden if self.arch.parallel else mixed
        return Moment("mlp.in", self._norm("mlp.pre", read), mixed)

    def _fed(self, moment: Moment, tap: Tap) -> Tensor:
        """Add the output of the MLP to the stream."""
        if moment.tap == "mlp.in":
            self._announce(moment, tap, direct=False)
            if self.router is not None:
                fed = mixture(self.arch, self.linears, self.router, moment.x, tap)
                return self._left(fed, moment.stream)
            middle = activated(self.arch, self.linears, "mlp", moment.x)
            moment = Moment("mlp.mid", middle, moment.stream)
        self._announce(moment, tap, direct="mlp.post" not in self.norms)
        return self._left(self.linears["mlp.down"](moment.x), moment.stream)

    def _left(self, fed: Tensor, stream: Tensor) -> Tensor:
        return self._norm("mlp.sum", stream + self._norm("mlp.post", fed))

    def _announce(self, moment: Moment, tap: Tap, *, direct: bool) -> None:
        tap(f"{moment.tap}.stream", moment.stream)
        if direct:
            tap(f"{moment.tap}.residual", moment.stream)
        tap(moment.tap, moment.x)

    def _heads(self, x: Tensor, norm: str) -> Tensor:
        """Return queries or keys as heads, normalised before or after they are separated."""
        if self.arch.qk_norm == "full":
            x = self._norm(norm, x)
        x = separated(x, self.arch.head_dim)
        return self._norm(norm, x) if self.arch.qk_norm == "head" else x

    def _placed(
        self, q: Tensor, k: Tensor, v: Tensor, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, turned to their positions, after those of the cache."""
        start = cache.length if cache else 0
        length = start + q.shape[2]
        if self.rotary is not None:
            q = self.rotary.turn(q, start, length)
            k = self.rotary.turn(k, start, length)
        if cache is not None:
            k, v = cache.extend(k, v)
        return q, k, v
