"""What the engine rounds besides: it multiplies integer codes with activations in int8.

Near 8 bits this costs more than the weights' own rounding, so it is counted where levels are compared
and choices put together.
"""

from whet.formats.activation import Activation, parse_activation
from whet.graph.executors.weights import is_integer
from whet.kernels.native import missing
from whet.search.unit import Level

ROUNDED = parse_activation("int8-g32")  # a scale for some 32 channels of a token


def rounding_of(level: Level) -> Activation | None:
    """Return how what a unit reads is rounded at a level; None if it keeps 16 bits."""
    if level.format is None or level.input is not None or missing() is not None:
        return level.input
    return ROUNDED if is_integer(level.format) else None
