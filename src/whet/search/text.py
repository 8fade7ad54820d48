"""The text of a search: windows to calibrate on, and held-out ones to feel gradients and judge on."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.calibrate.tokens import Tokens, calibration, spare
from whet.recipe.anatomy import Anatomy
from whet.recipe.recipe import Calibration
from whet.search.scale import is_wide
from whet.store.folder import Folder
from whet.store.tokenizer import Tokenizer

FELT = 4096  # tokens of the backward pass, about
HELD = 16384  # held-out tokens on which choices are compared, about
WIDE_FELT, WIDE_HELD = 2048, 2048  # the same of wide models
WIDE_SAMPLES = 32  # windows that levels of a wide model are compared on


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Windows of one source; none of `calibrated`, `felt` and `held` is in another of them."""

    calibrated: Tokens
    swept: Int64[Tensor, "swept time"]
    felt: Int64[Tensor, "felt time"]
    held: Int64[Tensor, "held time"]


def text_of(asked: Calibration, folder: Folder, model: Anatomy, seed: int) -> Text:
    """Return the windows of a search. Raises FolderError where the text is too short for them."""
    reader, length = Tokenizer(folder.path), min(asked.length, model.context)
    wide = is_wide(model)
    found = calibration(asked.source, reader, asked.samples, length, seed)
    held = max(1, (WIDE_HELD if wide else HELD) // length)
    felt = max(1, (WIDE_FELT if wide else FELT) // length)
    apart = spare(asked.source, reader, len(found.ids), length, seed, held + felt)
    mine = torch.linspace(0, len(apart) - 1, min(felt, max(1, len(apart) // 2))).round().long()
    others = torch.ones(len(apart), dtype=torch.bool)
    others[mine] = len(apart) == 1  # a single window serves both
    swept = found.ids[:: max(1, len(found.ids) // WIDE_SAMPLES)] if wide else found.ids
    return Text(found, swept, apart[mine], apart[others])
