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
        torch.special.ndtri(torch.linspace(tail, 0.5, codes // 2 + more).double())[:-1]
        for more in (1, 0)
    )
    levels = torch.cat([-below, torch.zeros(1), above]).float().sort().values
    return levels / levels.max()
