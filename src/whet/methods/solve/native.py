"""GPTQ and coordinate descent by the native extension, for formats whose outputs share nothing.

It works in float32, on some outputs at a time, each in a lane of a vector; what it finds is what
`columns` and `descent` find but for the order in which sums are added up, and does not depend on how
many threads there are. Everything else (float64, one scale for a whole matrix, sums of formats, no
extension) is refused here and left to torch.
"""

from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from whet.formats.grid import Grid
from whet.formats.minifloat import Minifloat
from whet.formats.scaled import Scaled
from whet.formats.table import Table
from whet.kernels.native import missing, native
from whet.kernels.threads import workers
from whet.methods.solve.factor import Factor
from whet.methods.solve.lattice import Lattice, Masked, Members

Settings = dict[str, Any]


def native_columns(
    target: Float[Tensor, "in out"], factor: Factor, members: Members
) -> tuple[Float[Tensor, "in out"], Float[Tensor, "out"]] | None:
    """Return what `columns.rounded` does; None of what the extension does not know."""
    format_ = _format(members, target, factor.lower)
    if format_ is None:
        return None
    result, loss = torch.empty_like(target), target.new_empty(target.shape[1])
    arrays = (_read(t) for t in (target, factor.lower, factor.order))
    native().solve_columns(*arrays, format_, result.numpy(), loss.numpy(), workers())
    return result, loss


def native_sweep(
    values: Float[Tensor, "in out"],
    gradient: Float[Tensor, "in out"],
    H: Float[Tensor, "in in"],
    ridge: float,
    lattice: Lattice,
    *,
    recode: bool,
    settle: bool,
    local: bool,
    slab: int,
) -> int | None:
    """Sweep in place and return how many codes changed; None of what the extension does not know."""
    format_ = _format(lattice, values, gradient, H)
    if format_ is None or not (values.is_contiguous() and gradient.is_contiguous()):
        return None
    return native().solve_sweep(
        values.numpy(), gradient.numpy(), _read(H), ridge, format_, recode, settle, local, slab,
        workers(),
    )  # fmt: skip


def _read(tensor: Tensor) -> NDArray[Any]:
    """Return the numbers of a tensor, in one piece."""
    return tensor.detach().contiguous().numpy()


def _format(members: Members, *tensors: Tensor) -> Settings | None:
    """Return what the extension is told of a format; None of one that it does not know."""
    if missing() is not None or not isinstance(members, Lattice) or members.shared:
        return None
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        return None
    if type(members) not in (Lattice, Masked):
        return None
    units = _units(members.codec, members)
    if units is None:
        return None
    whole = members.given.extra.get("global")
    mask = members.mask.float() if isinstance(members, Masked) else None
    return units | {
        "group": members.group,
        "stored": members.codec.coded.scale,
        "whole": 1.0 if whole is None else float(whole),
        "scale": members.scale.numpy(),
        "zero": None if members.zero is None else members.zero.numpy(),
        "moves_zero": members.moves_zero,
        "mask": None if mask is None else _read(mask),
    }


def _units(codec: Scaled, lattice: Lattice) -> Settings | None:
    """Return how a ratio becomes a unit."""
    told: Settings = dict.fromkeys(("low", "high", "top", "least", "step"), 0.0)
    told |= {"levels": 0, "bounds": None, "values": None}
    match codec:
        case Grid():
            high = codec.half - 1 if lattice.zero is None else codec.last
            return told | {"rounding": "integer", "low": float(-codec.half), "high": float(high)}
        case Minifloat():
            own = {"top": codec.top, "least": codec.least, "step": codec.step}
            return told | {"rounding": "minifloat"} | own
        case Table():
            bounds, values = (each.T for each in codec.borders(lattice.levels))
            kind = "table" if values.shape[1] == 1 else "tables"
            own = {"levels": len(values), "bounds": _read(bounds), "values": _read(values)}
            return told | {"rounding": kind} | own if len(values) > 1 else None
        case _:
            return None
