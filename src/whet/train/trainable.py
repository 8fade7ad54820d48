"""A model whose weights are parameters: all of them, its norms alone, or thin factors beside them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whet.base.errors import RecipeError
from whet.base.seed import stream_seed
from whet.formats.spec import Float as Plain
from whet.formats.spec import Format, Sparse
from whet.formats.weight import Weight, written
from whet.model.block import Block
from whet.model.decoder import Embedding, Head, Model
from whet.model.family import find
from whet.model.linear import Linear
from whet.model.norm import Norm
from whet.model.site import Site
from whet.model.source import Source
from whet.train.rounding import Rounded
from whet.train.sharded import Divide, gathered, undivided

Swap = Callable[[Linear, str], Linear]  # (linear, its place) -> what takes its place


@dataclass(frozen=True, slots=True)
class Scope:
    """What is trained: `all`, `norms`, or `lora-16` for factors of that rank and the norms.

    Weights that are stored as codes stay as they are in each.
    """

    linears: bool
    rank: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """Read a scope from a recipe."""
        kind, _, rank = text.partition("-")
        if kind == "lora" and rank.isdecimal() and int(rank) > 0:
            return cls(linears=True, rank=int(rank))
        if text not in ("all", "norms"):
            raise ValueError(f"scope is {text!r}, expected all, norms or e.g. lora-16")
        return cls(linears=text == "all")


class Trained(Linear):
    """A linear whose weight is a parameter, or fixed with a product of trained factors added to it.

    LoRA (arXiv:2106.09685, §4.1): W + B A, where B starts at zero. With `keep_zeros`, entries that
    are exactly zero stay so, as they always do where the format is sparse.
    Law: before the first step it is the linear that it was made from.
    """

    kept: Tensor | None

    def __init__(self, linear: Linear, rank: int | None, seed: int, *, keep_zeros: bool) -> None:
        dense = linear.weight.dense().detach().clone()
        bias = None if linear.bias is None else linear.bias.float().clone()
        plain = Weight(Plain("F32"), {} if rank is None else {"value": dense}, linear.shape)
        super().__init__(plain, bias, linear.activation, linear.input_scale)
        self.stored = linear.weight.format
        mask, keep = dense != 0, keep_zeros or isinstance(self.stored, Sparse)
        self.register_buffer("kept", mask if keep and not bool(mask.all()) else None)
        if bias is not None:
            self.bias = nn.Parameter(bias)
        if rank is None:
            self.master = nn.Parameter(dense)
        else:
            generator = torch.Generator().manual_seed(seed)
            first = (
                torch.randn(rank, linear.shape[1], generator=generator) * linear.shape[1] ** -0.5
            )
            self.first = nn.Parameter(first)
            self.second = nn.Parameter(torch.zeros(linear.shape[0], rank))
        self.rank = rank

    @property
    def weight(self) -> Weight:
        """The weight as it is now, through which gradients flow."""
        return Weight(self.format, {"value": self.dense()}, self.shape)

    def dense(self) -> Float[Tensor, "out in"]:
        """Return the matrix as it is now; factors are merged."""
        if self.rank is None:
            return self.master if self.kept is None else _Masked.apply(self.master, self.kept)
        return self.get_buffer("plane_value") + self._masked(self.second @ self.first)

    @torch.no_grad()
    def coded(self) -> Weight:
        """Return the weight in the format that it had."""
        return written(self.dense(), self.stored)

    def _masked(self, change: Tensor) -> Tensor:
        return change if self.kept is None else change * self.kept


class _Masked(torch.autograd.Function):
    """A matrix whose gradient is zero where nothing is kept."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, kept: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(kept)
        return matrix.view_as(matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return gradients[0] * ctx.saved_tensors[0], None


def plain(format_: Format) -> bool:
    """Return whether the numbers of a format can be trained as they are: all, or all that it keeps."""
    return isinstance(format_.inner if isinstance(format_, Sparse) else format_, Plain)


def as_it_is(linear: Linear, _role: str) -> Linear:
    """Return a linear of codes as it is."""
    return linear


def trainable(
    model: Model,
    scope: Scope,
    seed: int,
    *,
    keep_zeros: bool = True,
    coded: Swap = as_it_is,
    divide: Divide = undivided,
) -> Model:
    """Return a model that shares no trained number with the one given; tied weights stay tied.

    `coded` makes of linears of codes what is to be trained of them; `divide` sees each block as
    soon as it is made.
    Law: it computes what the given model computes.
    """
    made: dict[int, Linear] = {}

    def made_of(linear: Linear, role: str) -> Linear:
        if not plain(linear.weight.format):
            return coded(linear, role)
        if not scope.linears or (role in ("embed", "head") and scope.rank is not None):
            return linear
        return Trained(linear, scope.rank, stream_seed(seed, role), keep_zeros=keep_zeros)

    def swapped(linear: Linear, role: str) -> Linear:
        if id(linear) not in made:
            made[id(linear)] = made_of(linear, role)
        return made[id(linear)]

    first, last = model.embedding, model.head
    embedding = Embedding(
        model.arch, first.site, swapped(first.linear, "embed"), first.positions, first.name
    )
    if first.positions is not None and scope.linears and scope.rank is None:
        embedding.positions = nn.Parameter(first.positions.float().clone())
    blocks: list[Block] = []
    for block in model.blocks:
        blocks.append(_block(block, scope, swapped))
        divide(blocks[-1])
    norm = None if last.norm is None else _norm(last.norm)
    head = Head(model.arch, last.site, swapped(last.linear, "head"), norm, last.name)
    return Model(model.arch, embedding, blocks, head)


def _block(block: Block, scope: Scope, swapped: Swap) -> Block:
    linears = {
        role: swapped(linear, f"layers.{block.layer}.{role}")
        for role, linear in block.linears.items()
    }
    norms = {role: _norm(norm) for role, norm in block.norms.items()}
    made = Block(block.arch, block.layer, block.sites, linears, norms, block.names, block.router)
    if block.router is not None and scope.linears and scope.rank is None:
        made.router = nn.Parameter(block.router.float().clone())
    return made


def _norm(norm: Norm) -> Norm:
    made = Norm(norm.kind, None)
    for name in ("weight", "bias"):
        value: Tensor | None = getattr(norm, name)
        if value is not None:
            setattr(made, name, nn.Parameter(value.float().clone()))
    return made


def parameters(model: Model) -> dict[str, nn.Parameter]:
    """Return what is trained, by name, each once; it is an error if that is nothing."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise RecipeError(
            "nothing in this model can be trained: its weights are codes and it has no norms",
            "Train before the step that rounds.",
        )
    return found


@torch.no_grad()
def saved(model: Model, source: Source) -> Iterator[tuple[str, Tensor]]:
    """Yield what was trained, under the checkpoint's names and in its types.

    Law: without a step, these are the checkpoint's own tensors.
    """
    family = find(source.config)
    routers = {
        f"{block.names['mlp.router']}.weight": family.router_tensor(model.arch, block.layer)
        for block in model.blocks
        if block.router is not None
    }
    for part in _parts(model):
        for name, value in part.extras().items():
            if isinstance(value, nn.Parameter):
                stored = routers.get(name, name)
                yield stored, value.detach().to(source.tensor(stored).dtype, copy=True)
        yield from _matrices(part, source)


def _parts(model: Model) -> Iterator[Embedding | Block | Head]:
    """Yield the parts of a model, each whole while it is looked at."""
    with gathered(model):
        yield model.embedding
    for block in model.blocks:
        with gathered(block):
            yield block
    with gathered(model):
        yield model.head


def _matrices(part: Embedding | Block | Head, source: Source) -> Iterator[tuple[str, Tensor]]:
    """Yield the matrices of a part; those that are stored in one tensor, together."""
    whole: dict[str, Tensor] = {}
    for site in part.sites:
        linear = part.linears[site.role]
        if site.tied is None and isinstance(linear, Trained) and isinstance(linear.stored, Plain):
            if site.tensor not in whole:
                whole[site.tensor] = source.tensor(site.tensor).detach().clone()
            site.oriented(whole[site.tensor]).copy_(linear.dense().detach())
    yield from whole.items()


@torch.no_grad()
def recoded(model: Model) -> Iterator[tuple[Site, Weight]]:
    """Yield the weights in codes or sparse formats that were trained, in their formats."""
    for part in _parts(model):
        for site in part.sites:
            linear = part.linears[site.role]
            if site.tied is not None:
                continue
            if isinstance(linear, Rounded) or (
                isinstance(linear, Trained) and isinstance(linear.stored, Sparse)
            ):
                yield site, linear.coded()
