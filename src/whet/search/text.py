"""The text of a search: windows to calibrate on, and held-out ones for gradients and to judge on."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.calibrate.tokens import Tokens, calibration, spare
from whet.recipe.anatomy import Anatomy
from whet.recipe.recipe import Calibration
from whet.search.effort import TextSizes
from whet.store.folder import Folder
from whet.store.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Windows of one source; none of `calibrated`, `felt` and `held` is in another of them."""

    calibrated: Tokens
    swept: Int64[Tensor, "swept time"]
    felt: Int64[Tensor, "felt time"]
    held: Int64[Tensor, "held time"]


def calibration_of(asked: Calibration, folder: Folder, model: Anatomy, seed: int) -> Tokens:
    """Return the windows that the result is calibrated on."""
    length = min(asked.length, model.context)
    return calibration(asked.source, Tokenizer(folder.path), asked.samples, length, seed)


def text_of(asked: Calibration, folder: Folder, found: Tokens, seed: int, sizes: TextSizes) -> Text:
    """Return the windows of a search. Raises FolderError where the text is too short for them."""
    count, length = found.ids.shape
    reader = Tokenizer(folder.path)
    apart = spare(asked.source, reader, count, length, seed, sizes.held + sizes.gradients)
    most = min(sizes.gradients, max(1, len(apart) // 2))
    mine = torch.linspace(0, len(apart) - 1, most).round().long()
    others = torch.ones(len(apart), dtype=torch.bool)
    others[mine] = len(apart) == 1  # a single window serves both
    swept = torch.linspace(0, count - 1, min(sizes.swept, count)).round().long()
    return Text(found, found.ids[swept], apart[mine], apart[others])
