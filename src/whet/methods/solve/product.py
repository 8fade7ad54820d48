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

from jaxtyping import Float
from torch import Tensor

from whet.formats.codec import Codec, Planes, Scalar, Search
from whet.formats.lowrank import LowRank, leading, opposite, sides
from whet.formats.spec import Shape
from whet.methods.solve.complete import Problem, planes_of, solved
from whet.methods.solve.factor import factor

Norm = Literal["plain", "channels", "outputs"]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Planes of both factors, and what they multiply to."""

    planes: Planes
    values: Float[Tensor, "in out"]


@dataclass(frozen=True, slots=True)
class Coding:
    """How factors are rounded: the search for their ranges, and passes of coordinate descent."""

    search: Search
    sweeps: int


def weighed(problem: Problem, norm: Norm) -> Float[Tensor, "out in"]:
    """Return T L, in float64: the columns in any order."""
    target = problem.target.T.double()
    if norm == "plain":
        return target
    if norm == "channels":
        return target * (problem.H.diagonal().double() + problem.factor.ridge).sqrt()
    return target[:, problem.factor.order] @ problem.factor.lower.double()


def nearest_product(problem: Problem, codec: LowRank, norm: Norm, coding: Coding) -> Product:
    """Return the product of a rank that is nearest to the target.

    The left factor is stored first; the right one is of least squares for it, and is rounded in the
    norm of the outputs where it is in codes.
    Law: for factors that are not rounded, and the norm of the outputs, the loss is the least there is.
    """
    target = problem.target.T.double()
    left = leading(weighed(problem, norm), codec.rank)
    wide = opposite(left, target)
    seen = (wide @ problem.H.double() @ wide.T).to(problem.H.dtype)
    planes = _rounded(codec.inner, left, seen, problem.factor.damping, coding)
    stored = codec.inner.decode(planes, (left.shape[0], left.shape[1]))
    right = opposite(stored.double(), target)
    both = sides(planes, _right(codec.inner, right, problem, coding))
    shape: Shape = (target.shape[0], target.shape[1])
    return Product(both, codec.decode(both, shape).T.to(problem.target.dtype))


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
