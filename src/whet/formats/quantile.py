"""Levels that normally distributed weights fill evenly (NF4 and its kin)."""

import torch
from jaxtyping import Float
from torch import Tensor


def quantile_levels(bits: int) -> Float[Tensor, "codes"]:
    """Return 2^bits ascending levels from -1 to 1, zero among them, one more above than below.

    Source: T. Dettmers and others, "QLoRA" (arXiv:2305.14314), section 3 and appendix E. Law: for
    4 bits the table is the published one, bit for bit.
    """
    codes = 2**bits
    tail = round(1 - (1 / (2 * codes) + 1 / (2 * (codes - 1))) / 2, 7)
    above, below = (
        torch.special.ndtri(_steps(tail, codes // 2 + more).double())[:-1] for more in (1, 0)
    )
    levels = torch.cat([-below, torch.zeros(1), above]).float().sort().values
    return levels / levels.max()


def _steps(start: float, count: int) -> Float[Tensor, "count"]:
    """Return even steps from `start` to a half, each counted from the nearer end.

    Like `torch.linspace`, whose last bits depend on how wide the processor's vectors are.
    """
    first, last = torch.tensor(start), torch.tensor(0.5)
    step, index = (last - first) / max(count - 1, 1), torch.arange(count).float()
    return torch.where(index < count // 2, first + step * index, last - step * (count - 1 - index))
