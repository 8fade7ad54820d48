"""The product of two matrices that is nearest to a target, in the norm of the outputs.

With H = L Lᵀ, tr((P-T) H (P-T)ᵀ) = ‖(P-T) L‖², so that the best P of rank r projects the outputs
on the left singular vectors Q of T L with the largest singular values: P = Q Qᵀ T, and the loss is
the sum of the squares of the other singular values. This is the whitened SVD of SVD-LLM
(arXiv:2403.07378, §3) without an inverse of L; for L = diag(E[x²])^½ it weighs single channels, as
ASVD does (arXiv:2312.05821, §3.2), and for L = I it is the plain SVD (Eckart, Young, 1936).

Q is what is stored as the left factor. Its columns have one length, so that codes round all of them
alike: of the splits of the singular values, that which spends the least error on the left factor.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats import spec
from whet.formats.codec import Codec, Planes, Scalar, Search
from whet.formats.codecs import product_of
from whet.formats.lowrank import leading, opposite, sides
from whet.formats.spec import Shape
from whet.methods.solve.complete import Problem, planes_of, solved
from whet.methods.solve.factor import NARROW, factor

Norm = Literal["plain", "channels", "outputs"]
LEAST = 1e-4  # damping of what a product leaves, which has no full rank


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Planes of both factors, and what they multiply to."""

    format: spec.LowRank
    planes: Planes
    values: Float[Tensor, "in out"]


@dataclass(frozen=True, slots=True)
class Coding:
    """How factors are rounded: the search for their ranges, and passes of coordinate descent."""

    search: Search
    sweeps: int


@dataclass(frozen=True, slots=True)
class Worth:
    """Which singular values are kept, beside the rank that a format allows.

    `energy`: so many that their squares are this share of all. `gain`: those whose square, as a
    share of all, is at least so much for a million numbers stored. The same `gain` in every layer
    spends numbers where they bring most: squares fall within a layer, so that taking greedily what
    brings most, over all layers, ends at such a threshold. 0: all.
    """

    energy: float = 0.0
    gain: float = 0.0

    def rank(self, basis: Float[Tensor, "out rank"], matrix: Float[Tensor, "out cols"]) -> int:
        """Return how many of the singular vectors of a matrix are kept, one at least."""
        squares = (basis.T @ matrix).square().sum(1)
        share = squares / matrix.square().sum().clamp(min=torch.finfo(squares.dtype).tiny)
        kept = len(share)
        if self.energy:
            kept = int((share.cumsum(0) < self.energy).sum()) + 1
        if self.gain:
            least = self.gain * 1e-6 * (matrix.shape[0] + matrix.shape[1])
            kept = min(kept, int((share >= least).sum()))
        return min(max(kept, 1), len(share))


def weighed(problem: Problem, norm: Norm) -> Float[Tensor, "out in"]:
    """Return T L, in float64: the columns in any order."""
    target = problem.target.T.double()
    if norm == "plain":
        return target
    if norm == "channels":
        return target * (problem.H.diagonal().double() + problem.factor.ridge).sqrt()
    return target[:, problem.factor.order] @ problem.factor.lower.double()


def nearest_product(
    problem: Problem, form: spec.LowRank, norm: Norm, coding: Coding, worth: Worth = Worth()
) -> Product:
    """Return the product of a rank that is nearest to the target.

    The left factor is stored first; the right one is of least squares for it, and is rounded in the
    norm of the outputs where it is in codes.
    Law: for factors that are not rounded, and the norm of the outputs, the loss is the least there is.
    """
    target, matrix = problem.target.T.double(), weighed(problem, norm)
    left = leading(matrix, form.rank)
    form = replace(form, rank=worth.rank(left, matrix))
    left = left[:, : form.rank].contiguous()
    codec = product_of(form)
    wide = opposite(left, target)
    seen = (wide @ problem.H.double() @ wide.T).to(problem.H.dtype)
    planes = _rounded(codec.inner, left, seen, problem.factor.damping, coding)
    stored = codec.inner.decode(planes, (left.shape[0], left.shape[1]))
    right = opposite(stored.double(), target)
    both = sides(planes, _right(codec.inner, right, problem, coding))
    shape: Shape = (target.shape[0], target.shape[1])
    return Product(form, both, codec.decode(both, shape).T.to(problem.target.dtype))


def freed(problem: Problem, right: Float[Tensor, "rank in"]) -> Problem:
    """Return the problem of codes that a product stands beside, its right factor R known.

    Whatever the codes are, the best left factor takes all of their error that R can reach:

        min over L of tr((Q + L R - T) H (Q + L R - T)ᵀ) = tr((Q - T) H' (Q - T)ᵀ),
        H' = H - H Rᵀ (R H Rᵀ)⁺ R H,

    H damped. So codes that know of the product are chosen by the same mathematics, with H' for H.
    """
    exact = torch.float64 if len(problem.H) <= NARROW else problem.H.dtype
    damped = problem.H.to(exact, copy=True)
    damped.diagonal().add_(problem.factor.ridge)
    reached = right.to(exact) @ damped
    among = torch.linalg.pinv(reached @ right.to(exact).T, hermitian=True)
    damped -= reached.T @ among @ reached
    left = ((damped + damped.T) / 2).to(problem.H.dtype)
    return Problem(problem.target, left, factor(left, LEAST))


def right_of(product: Product) -> Float[Tensor, "rank in"]:
    """Return the right factor of a product."""
    rows, cols = product.values.shape[1], product.values.shape[0]
    return product_of(product.format).factors(product.planes, (rows, cols))[1]


def _rounded(
    inner: Codec, left: Float[Tensor, "out rank"], seen: Tensor, damping: float, coding: Coding
) -> Planes:
    """Return the planes of the left factor, whose inputs have the Gram matrix `seen`."""
    if not isinstance(inner, Scalar) or not seen.any():
        return inner.encode(left.float())
    narrow = left.T.to(seen.dtype).contiguous()
    found = solved(
        Problem(narrow, seen, factor(seen, damping)), inner, coding.search, coding.sweeps
    )
    return planes_of(found)


def _right(
    inner: Codec, right: Float[Tensor, "rank in"], problem: Problem, coding: Coding
) -> Planes:
    """Return the planes of the right factor."""
    if not isinstance(inner, Scalar):
        return inner.encode(right.float())
    wide = replace(problem, target=right.T.to(problem.target.dtype).contiguous())
    return planes_of(solved(wide, inner, coding.search, coding.sweeps))
