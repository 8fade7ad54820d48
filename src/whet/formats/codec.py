"""What a number format means: numbers to codes and back. One `Codec` for each kind of `Format`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.base.errors import NumericalError
from whet.formats.spec import Format, Shape

Planes = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Search:
    """How a range is chosen: `rule` says what is minimised, over `steps` shrinkages to `floor`.

    minmax      the extremes
    percentile  the `percentile` of |w| in the group
    mse         squared error
    hessian     squared error weighted by the diagonal of H (needs `importance`)
    kl          divergence between the histograms of w and of its rounding
    """

    rule: Literal["minmax", "percentile", "mse", "hessian", "kl"] = "mse"
    steps: int = 40
    floor: float = 0.4
    percentile: float = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class Params:
    """What the codes of a matrix are read with; every number is already rounded to its stored type.

    `scale`, `zero`: one for each row and group, or (1, 1) for the whole matrix; float32.
    `levels`: ascending values of the codes where the format learns them, a row each or one for all.
    `extra`: what else the format stores (the tensor scale of nvfp4, the base of a tuned log).
    """

    scale: Float[Tensor, "#rows #groups"]
    zero: Float[Tensor, "#rows #groups"] | None = None
    levels: Float[Tensor, "#rows codes"] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


def require_finite(weight: Tensor) -> None:
    """Raise a NumericalError that names the first NaN or infinity of a matrix, if there is one."""
    if weight.numel() and not torch.stack(tuple(weight.aminmax())).isfinite().all():
        bad = (~weight.isfinite()).nonzero()
        row, column = bad[0].tolist()
        raise NumericalError(
            f"the weight holds {float(weight[row, column])} at row {row}, column {column}; "
            f"{len(bad)} of {weight.numel()} numbers are not finite",
            "the source model is damaged: fetch it again, or compress a different one",
        )


class Codec(ABC):
    """The mathematics of one format."""

    format: Format

    @abstractmethod
    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write the nearest member by this format's default rule.

        Law: a projection, `decode(encode(decode(p))) == decode(p)`, for all formats but sums,
        which can write the same matrix in many ways.
        """

    @abstractmethod
    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Read planes as float32: the meaning of the weight."""

    @abstractmethod
    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of rows `start` to `stop` alone. Law: decodes to those rows."""


class Scalar(Codec):
    """A format in which each weight is one of a few levels, scaled for its group.

    All that GPTQ, AWQ, HQQ and the rest need to know of a number format.
    Every value is `scale * unit`, where the unit depends on the code (and the zero point) alone.
    Law: `snap(snap(w)) == snap(w)`; a level is a fixed point; nothing representable is nearer.
    Law: `decode(write(q, p), shape) == q` for every q that `snap` returned.
    """

    rowwise: bool = True  # rows share no parameter, so rows may be coded apart and stacked

    @abstractmethod
    def fit(
        self,
        weight: Float[Tensor, "out in"],
        search: Search = Search(),
        importance: Float[Tensor, "in"] | None = None,
    ) -> Params:
        """Choose parameters for a matrix; `importance` weighs the inputs (the diagonal of H)."""

    @abstractmethod
    def snap(
        self, weight: Float[Tensor, "out cols"], params: Params, columns: Int64[Tensor, "cols"]
    ) -> Float[Tensor, "out cols"]:
        """Return the nearest representable values; `columns` are the input indices of `weight`."""

    @abstractmethod
    def unit(self, values: Float[Tensor, "out in"], params: Params) -> Float[Tensor, "out in"]:
        """Return representable values without their scale: `values == scale * unit`."""

    @abstractmethod
    def stored(
        self, scale: Float[Tensor, "#rows #groups"], params: Params
    ) -> Float[Tensor, "#rows #groups"]:
        """Round scales to the type they are stored in, so that decoding sees what coding saw."""

    @abstractmethod
    def rescaled(
        self,
        values: Float[Tensor, "out in"],
        params: Params,
        scale: Float[Tensor, "#rows #groups"],
    ) -> tuple[Float[Tensor, "out in"], Params]:
        """Return the same codes under other scales, rounded to their stored type.

        Law: `decode(write(*rescaled(q, p, s)), shape) == rescaled(q, p, s)[0]`.
        """

    @abstractmethod
    def write(self, values: Float[Tensor, "out in"], params: Params) -> dict[str, Tensor]:
        """Assemble the planes of representable values."""

    @abstractmethod
    def read(self, planes: Planes, shape: Shape) -> tuple[Float[Tensor, "out in"], Params]:
        """Undo `write`."""
