"""What is done less thoroughly for models whose every step takes long."""

from whet.recipe.anatomy import Anatomy

WIDE = 200_000_000  # weights from which a level of a block takes minutes
WIDE_WINDOWS = 32  # of text on which the folder of a wide model is measured


def is_wide(model: Anatomy) -> bool:
    """Return whether a model, and every smaller shape of it, is searched with less."""
    return sum(site.shape[0] * site.shape[1] for site in model.sites) >= WIDE
