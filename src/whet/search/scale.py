"""What is done less thoroughly for models whose every step takes long."""

from collections.abc import Iterable

from whet.model.site import Site

WIDE = (
    200_000_000  # weights from which a forward pass takes seconds, and a level of a block minutes
)


def is_wide(sites: Iterable[Site]) -> bool:
    """Return whether linears of these sites make a model that is searched with less."""
    return sum(site.shape[0] * site.shape[1] for site in sites) >= WIDE
