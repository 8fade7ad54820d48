"""transformers builds models whose feed-forward layers differ in width as `config.json` tells them.

Imported by `narrow` when transformers is; not part of the API.
"""

from functools import wraps
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from whet.model.architecture import Architecture
from whet.model.family import Family, find
from whet.model.uneven import KEY

DONE = "_whet_narrows"


def install() -> None:
    """Make models of transformers take the widths that their config tells; harmless when repeated."""
    finish = PreTrainedModel.post_init
    if hasattr(finish, DONE):
        return

    @wraps(finish)
    def post_init(self: PreTrainedModel) -> None:
        if getattr(self.config, KEY, None) is not None:
            narrow(self)
        finish(self)

    setattr(post_init, DONE, True)
    PreTrainedModel.post_init = post_init


def narrow(model: PreTrainedModel) -> None:
    """Give the linears of every block their own sizes. Law: those that have them are left alone."""
    config: dict[str, Any] = model.config.to_dict()
    family = find(config)
    arch = family.architecture(config)
    shapes = _shapes(family, arch)
    for path, module in list(model.named_modules()):
        shape = shapes.get(path.removeprefix(arch.prefix))
        if shape is not None:
            narrower = _resized(module, shape, transposed=family.transposed)
            if narrower is not module:
                model.set_submodule(path, narrower)


def _shapes(family: Family, arch: Architecture) -> dict[str, tuple[int, int]]:
    """Return the shape (out, in) of each linear of a block by its path, without the prefix."""
    blocks = (family.block_sites(arch, layer) for layer in range(arch.layers))
    return {s.module.removeprefix(arch.prefix): s.shape for sites in blocks for s in sites}


def _resized(module: nn.Module, shape: tuple[int, int], *, transposed: bool) -> nn.Module:
    """Return a linear of another size like the one given; itself if it has that size."""
    weight = module.get_parameter("weight")
    rows, inputs = shape
    if tuple(weight.shape) == (shape[::-1] if transposed else shape):
        return module
    if transposed:
        return type(module)(rows, inputs)  # transformers' Conv1D takes its outputs first
    bias = getattr(module, "bias", None) is not None
    return nn.Linear(inputs, rows, bias=bias, device=weight.device, dtype=weight.dtype)
