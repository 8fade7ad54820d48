"""What a decoder is, in numbers and choices: all that a block needs to know. Needs no torch."""

from dataclasses import dataclass
from typing import Literal

from whet.formats.keeping import Keeping

Stretch = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
Nonlinearity = Literal["silu", "gelu", "gelu_tanh", "relu"]

PRE = ("attn.pre", "mlp.pre")  # x + f(norm(x))
POST = ("attn.post", "mlp.post")  # x + norm(f(x))
SANDWICH = (*PRE, *POST)  # x + norm(f(norm(x)))
SUM = ("attn.sum", "mlp.sum")  # norm(x + f(x))


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions (arXiv:2104.09864), and how they are stretched to longer contexts.

    linear    positions are divided by `factor`
    dynamic   the base grows with the length beyond `trained`
    llama3    low frequencies are divided by `factor`, the bands `low` to `high` are blended
    yarn      arXiv:2309.00071: blended between `fast` and `slow` rotations over `trained`
    longrope  arXiv:2402.13753: each frequency by its `short` or, beyond `trained`, `long` factor
    """

    theta: float = 10_000.0
    fraction: float = 1.0  # of a head's channels are turned: the first ones
    kind: Stretch = "default"
    factor: float = 1.0
    trained: int = 0  # context before stretching [token]
    gain: float = 1.0  # multiplies cosine and sine
    low: float = 1.0
    high: float = 4.0
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Norm:
    """How a vector is normalised: by its root mean square, or by mean and deviation."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-6
    offset: float = 0.0  # added to the gain (Gemma stores what the gain has above one)
    affine: bool = True  # has a gain; a layer norm then has a bias too


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: of `count`, `active` run for each token."""

    count: int
    active: int
    ffn: int
    layers: tuple[int, ...]  # the blocks that have one
    normalize: bool = True  # the weights of the active experts sum to one


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Sizes and choices of a decoder-only model; sizes in [channel], lengths in [token].

    `norms`: the norms of a block, by role; which ones there are says where they stand.
    `biases`: the roles of the linears that have a bias.
    `windows`, of each block: how far back attention sees, `None` for all the way.
    `local_rope`: the positions of blocks with a window, where they differ from the others'.
    `keeping`: what keys and values are kept in, where the model says so.
    `ffns`: the width of each block's feed-forward layer, where they differ; `ffn` is the greatest.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    norm: Norm
    windows: tuple[int | None, ...]
    norms: tuple[str, ...] = PRE
    parallel: bool = False  # attention and MLP read the same residual stream
    final_norm: bool = True
    activation: Nonlinearity = "silu"
    gated: bool = True
    qkv: Literal["split", "joined", "interleaved"] = "split"
    gate_up: Literal["split", "joined"] = "split"
    qk_norm: Literal["none", "head", "full"] = "none"
    biases: frozenset[str] = frozenset()
    rope: Rope | None = None
    local_rope: Rope | None = None
    attention_scale: float = 1.0
    scale_by_depth: bool = False  # attention logits are also divided by 1 + layer
    attention_cap: float | None = None
    logit_cap: float | None = None
    embedding_scale: float = 1.0
    position_offset: int | None = None  # learned positions, and the row of the first one
    tied: bool = False
    experts: Experts | None = None
    prefix: str = ""  # of the checkpoint's names
    stacked: bool = False  # the experts of a block are stored in one tensor
    keeping: Keeping | None = None
    ffns: tuple[int, ...] = ()

    @property
    def group(self) -> int:
        """Query heads to a key-value head."""
        return self.heads // self.kv_heads

    def ffn_of(self, layer: int) -> int:
        """Return the channels of a block's feed-forward layer."""
        return self.ffns[layer] if self.ffns else self.ffn

    def sparse(self, layer: int) -> bool:
        """Return whether a block has experts."""
        return self.experts is not None and layer in self.experts.layers

    def rope_of(self, layer: int) -> Rope | None:
        """Return the rotary positions of a block."""
        return self.rope if self.windows[layer] is None else self.local_rope or self.rope

    def scale_of(self, layer: int) -> float:
        """Return what attention logits of a block are multiplied by."""
        return self.attention_scale / (layer + 1 if self.scale_by_depth else 1)
