"""The codec of each format."""

from functools import cache

from whet.base.errors import FormatError
from whet.formats import compose, element, lowrank, sparse
from whet.formats.codebook import Codebook
from whet.formats.codec import Codec, Scalar
from whet.formats.dense import Dense
from whet.formats.grid import Grid
from whet.formats.integer_levels import IntegerLevels
from whet.formats.log import TunedLog, log_levels, sum_levels
from whet.formats.minifloat import Minifloat
from whet.formats.minimum import Minimum
from whet.formats.quantile import quantile_levels
from whet.formats.scaled import Scaled
from whet.formats.spec import Coded, Corrected, Float, Format, LowRank, Sparse, Sum
from whet.formats.table import Table


@cache
def codec_of(format_: Format) -> Codec:
    """Return the mathematics of a format."""
    match format_:
        case Float():
            return Dense(format_)
        case Coded(minimum=True):
            return Minimum(format_)
        case Coded(element=element.Learned(integers=True)):
            return IntegerLevels(format_)
        case Coded():
            return _coded(format_)
        case Sum(terms):
            return compose.Sum(format_, [_coded(term) for term in terms])
        case LowRank():
            return product_of(format_)
        case Corrected(codes, product):
            return lowrank.Corrected(format_, codec_of(codes), product_of(product))
        case Sparse(_, inner):
            return sparse.Sparse(format_, codec_of(inner))
        case _:
            raise FormatError(f"no codec reads the format {format_}")


def scalar_of(format_: Format) -> Scalar:
    """Return the mathematics of a format of codes; plain floats have none to choose."""
    codec = codec_of(format_)
    if not isinstance(codec, Scalar):
        raise FormatError(
            f"{format_} holds {_held(format_)}, expected a format of codes", "choose e.g. int4-g64"
        )
    return codec


def _held(format_: Format) -> str:
    match format_:
        case Sparse():
            return "codes for some of the weights alone"
        case LowRank() | Corrected():
            return "a product"
        case Coded(minimum=True):
            return "a minimum of each group, which is read but not solved for"
        case Coded():
            return "levels in int8, which are read but not solved for"
        case _:
            return "plain numbers"


def product_of(format_: LowRank) -> lowrank.LowRank:
    """Return the mathematics of a product."""
    return lowrank.LowRank(format_, codec_of(format_.inner))


def _coded(format_: Coded) -> Scaled:
    match format_.element:
        case element.Integer():
            return Grid(format_)
        case element.Minifloat() as kind:
            return Minifloat(format_, kind)
        case element.Quantile(bits):
            return Table(format_, tuple(quantile_levels(bits).tolist()))
        case element.Log(_, None):
            return TunedLog(format_)
        case element.Log(bits, base):
            return Table(format_, log_levels(bits, base or 2.0))
        case element.PowerSum(bits):
            return Table(format_, sum_levels(bits))
        case element.Learned(integers=True):
            raise FormatError(
                f"{format_} is read but not solved for, so it is no term of a sum",
                "choose levels in f16, e.g. codebook4-g32-shared",
            )
        case element.Learned() as kind:
            return Codebook(format_, kind)
