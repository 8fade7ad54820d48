"""Parameters, gradients and moments divided among processes: fully sharded data parallelism.

Zhao et al. (arXiv:2304.11277, §3), by `torch.distributed.fsdp.fully_shard`. Each block is gathered
before it is computed, on the way forth and on the way back, and let go of after; its gradients are
added up and divided at once. Embedding, last norm and head are gathered once for each part of a
step. What is not trained (codes, the teacher, masks) every process holds whole.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from whet.model.block import Block
from whet.model.decoder import Model
from whet.train.parallel import Team

if TYPE_CHECKING:
    from typing import TypeGuard

    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

Divide = Callable[[Block], None]


def is_divided(value: Tensor) -> "TypeGuard[DTensor]":
    """Return whether this process holds only a part of a tensor."""
    if not distributed.is_available() or not distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def whole(value: Tensor) -> Tensor:
    """Return all of a tensor; where it is divided, every process has to ask."""
    return value.full_tensor() if is_divided(value) else value


def local(value: Tensor) -> Tensor:
    """Return what this process holds of a tensor. Law: both share their memory."""
    return value.to_local() if is_divided(value) else value


def piece(value: Tensor, like: Tensor) -> Tensor:
    """Return what this process holds of a tensor that is divided as `like` is."""
    if not is_divided(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return local(distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None))


def undivided(block: Block) -> None:
    """Leave a block as it is."""


def divided(block: Block) -> None:
    """Keep of a block's parameters only what is this process's own.

    Law: the model computes what it did.
    """
    if block.router is not None:
        block.register_forward_pre_hook(_reached)
    _shard(block)
    _forward(block, "attention")


def finished(model: Model, beside: nn.Module) -> None:
    """Divide what is in no block, and the maps that are trained beside a model of divided blocks."""
    _shard(model)
    _forward(model, "states")
    for module in beside.children():
        _shard(module)


@contextmanager
def gathered(module: nn.Module) -> Generator[None]:
    """Hold all of what a module itself divides, for reading; every process has to."""
    parts = _divided_module(module)
    if parts is not None:
        parts.unshard()
    try:
        yield
    finally:
        if parts is not None:
            parts.reshard()


def _divided_module(module: nn.Module) -> "FSDPModule | None":
    if not distributed.is_available():
        return None
    from torch.distributed.fsdp import FSDPModule

    return module if isinstance(module, FSDPModule) else None


def _shard(module: nn.Module) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(module, mesh=init_device_mesh("cpu", (Team.joined().size,)))


def _forward(module: nn.Module, name: str) -> None:
    """Gather a module's parameters for one of its methods, as for `forward`."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    register_fsdp_forward_method(module, name)


def _reached(block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give every parameter a gradient: experts that no token of this process chose have none.

    Processes add up the gradients of those parameters alone that have one, so all must have all.
    """
    hidden, *rest = given
    return (_Reached.apply(hidden, *block.parameters()), *rest)


class _Reached(torch.autograd.Function):
    """Its first argument; the others get gradients of zeros, which take no memory."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, *others: Tensor) -> Tensor:  # noqa: ANN401
        ctx.shapes = [other.shape for other in others]
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        gradient = gradients[0]
        return gradient, *(gradient.new_zeros(()).expand(shape) for shape in ctx.shapes)
