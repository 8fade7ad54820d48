"""A block apart from its model, as numbers that can stand in a pass that is differentiated."""

from torch import nn

from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.model.block import Block
from whet.model.linear import Linear
from whet.model.norm import Norm
from whet.train.rounding import Rounded, scaled_of
from whet.train.trainable import Trained, plain


def unrounded(block: Block, roles: tuple[str, ...]) -> Block:
    """Return a block whose linears of `roles` can be trained. Law: it computes the same."""
    linears = {
        role: _unrounded(linear) if role in roles else fixed(linear)
        for role, linear in block.linears.items()
    }
    router = None if block.router is None else block.router.clone()
    norms = {role: fixed_norm(norm) for role, norm in block.norms.items()}
    return Block(block.arch, block.layer, block.sites, linears, norms, block.names, router)


def _unrounded(linear: Linear) -> Linear:
    if plain(linear.weight.format):
        made = Trained(linear, None, seed=0, keep_zeros=True)
        return _fixed_bias(made)
    if scaled_of(linear.weight.format) is not None:
        return Rounded(linear)
    return fixed(linear)


def fixed(linear: Linear) -> Linear:
    """Return a linear whose numbers can stand in a pass that is differentiated."""
    weight = linear.weight
    planes = {"value": weight.dense().clone()}
    plain = Weight(Plain("F32"), planes, weight.shape)
    bias = None if linear.bias is None else linear.bias.clone()
    return Linear(plain, bias, linear.activation, linear.input_scale)


def fixed_norm(norm: Norm) -> Norm:
    """Return a norm whose numbers can stand in a pass that is differentiated."""
    parts = (None if part is None else part.clone() for part in (norm.weight, norm.bias))
    return Norm(norm.kind, *parts)


def _fixed_bias(linear: Trained) -> Trained:
    if isinstance(linear.bias, nn.Parameter):
        linear.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return linear
