"""Products of two matrices, alone or on top of codes."""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.base.errors import FormatError
from whet.formats import spec
from whet.formats.codec import Codec, Planes, require_finite
from whet.formats.compose import joined, of
from whet.formats.spec import Shape

Factors = tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]


class LowRank(Codec):
    """Two factors, each in one format; the matrix is their product.

    Written by default as the nearest product (Eckart, Young, "The approximation of one matrix by
    another of lower rank", 1936), its left factor with orthonormal columns; the right one is fitted
    to the left one as it is stored.
    There is no canonical way to write a product: writing what was read gives nearby values.
    """

    def __init__(self, format_: spec.LowRank, inner: Codec) -> None:
        self.format, self.sizes = format_, format_.factors
        self.rank, self.inner = format_.rank, inner

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write the nearest product, its factors rounded one after the other."""
        require_finite(weight)
        if reason := self.format.refuses((weight.shape[0], weight.shape[1])):
            raise FormatError(reason, "choose a smaller rank")
        return self.fitted(leading(weight.double(), self.rank), weight.double())

    def fitted(
        self, left: Float[Tensor, "out rank"], weight: Float[Tensor, "out in"]
    ) -> dict[str, Tensor]:
        """Write a left factor, and the right one that is best for it as it is stored."""
        planes = self.inner.encode(left.float())
        stored = self.inner.decode(planes, (left.shape[0], self.rank))
        return sides(planes, self.inner.encode(opposite(stored.double(), weight).float()))

    def factors(self, planes: Planes, shape: Shape) -> Factors:
        """Return both factors as they are read."""
        sizes = self.sizes(shape)
        left, right = (self.inner.decode(under(s, planes), sizes[s]) for s in ("left", "right"))
        return left, right

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Multiply the factors, in float64."""
        left, right = self.factors(planes, shape)
        return (left.double() @ right.double()).float()

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return some rows of the left factor, and the right one."""
        size = self.sizes(shape)["left"]
        part = self.inner.rows(under("left", planes), size, start, stop)
        return sides(part, under("right", planes))


class Corrected(Codec):
    """Codes, and a product for what they left."""

    def __init__(self, format_: spec.Corrected, codes: Codec, product: LowRank) -> None:
        self.format, self.codes, self.product = format_, codes, product

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write the codes by their own rule, then the nearest product for what is left."""
        codes = self.codes.encode(weight)
        left = weight.float() - self.codes.decode(codes, (weight.shape[0], weight.shape[1]))
        return joined([codes, self.product.encode(left)])

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Add the terms."""
        return self.codes.decode(of(0, planes), shape) + self.product.decode(of(1, planes), shape)

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows."""
        terms = enumerate((self.codes, self.product))
        return joined([term.rows(of(i, planes), shape, start, stop) for i, term in terms])


def leading(matrix: Float[Tensor, "out cols"], rank: int) -> Float[Tensor, "out rank"]:
    """Return the left singular vectors of the largest singular values, greatest first.

    By the eigenvectors of the smaller of M Mᵀ and Mᵀ M; of the latter, Mz is made orthonormal.
    Law: ‖M - Q Qᵀ M‖² is the sum of the squares of the other singular values.
    """
    if matrix.shape[0] <= matrix.shape[1]:
        return torch.linalg.eigh(matrix @ matrix.T)[1].flip(1)[:, :rank].contiguous()
    vectors = torch.linalg.eigh(matrix.T @ matrix)[1].flip(1)[:, :rank]
    return torch.linalg.qr(matrix @ vectors)[0]


def opposite(
    left: Float[Tensor, "out rank"], weight: Float[Tensor, "out in"]
) -> Float[Tensor, "rank in"]:
    """Return the right factor of least squares for a left one, in whatever norm of the inputs.

    Of tr((L R - W) H (L R - W)ᵀ) the minimum does not depend on H: it is (LᵀL)⁺ Lᵀ W.
    """
    return torch.linalg.pinv(left.T @ left, hermitian=True) @ (left.T @ weight)


def under(side: str, planes: Planes) -> dict[str, Tensor]:
    """Return the planes of a factor under their own names."""
    head = f"{side}."
    return {n.removeprefix(head): plane for n, plane in planes.items() if n.startswith(head)}


def sides(left: Planes, right: Planes) -> dict[str, Tensor]:
    """Return the planes of both factors."""
    every = {"left": left, "right": right}
    return {f"{side}.{n}": plane for side, mine in every.items() for n, plane in mine.items()}
