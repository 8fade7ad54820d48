"""The codec of each format."""

from functools import cache

from whet.base.errors import FormatError
from whet.formats.codec import Codec, Scalar
from whet.formats.dense import Dense
from whet.formats.element import Integer
from whet.formats.grid import Grid
from whet.formats.spec import Coded, Float, Format


@cache
def codec_of(format_: Format) -> Codec:
    """Return the mathematics of a format."""
    match format_:
        case Float():
            return Dense(format_)
        case Coded(element=Integer()):
            return Grid(format_)
        case _:
            raise FormatError(f"no codec reads the format {format_}")


def scalar_of(format_: Format) -> Scalar:
    """Return the mathematics of a format of codes; plain floats have none to choose."""
    codec = codec_of(format_)
    if not isinstance(codec, Scalar):
        raise FormatError(
            f"{format_} holds plain numbers, expected a format of codes", "choose e.g. int4-g64"
        )
    return codec
