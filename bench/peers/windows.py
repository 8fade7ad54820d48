"""Windows of tokens: the one way in which calibration and validation text is cut."""

from pathlib import Path

import torch
from transformers import AutoTokenizer


def windows(folder: Path, text: Path, length: int) -> torch.Tensor:
    """All whole, consecutive windows of a text's token stream, ``[window, token]``.

    The stream is the tokenization of the whole file without special tokens; what is left over at
    its end is dropped.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stream = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False).input_ids
    count = len(stream) // length
    return torch.tensor(stream[: count * length]).reshape(count, length)


def spread(rows: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` rows at even distances: row ``k * len(rows) // count`` for every ``k``."""
    if len(rows) < count:
        raise ValueError(f"found {len(rows)} windows of text, expected at least {count}")
    return rows[[k * len(rows) // count for k in range(count)]]
