"""Text that the student writes itself, to be judged by the teacher (GKD, arXiv:2306.13649, §3.1)."""

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.model.decoder import Model


@torch.no_grad()
def continued(
    model: Model,
    prompts: Int64[Tensor, "batch prompt"],
    length: int,
    seed: int,
    temperature: float = 1.0,
) -> Int64[Tensor, "batch time"]:
    """Return prompts with what the model writes after them, `length` tokens in all.

    Law: equal weights, prompts and seed give equal text.
    """
    generator = torch.Generator().manual_seed(seed)
    cache = model.new_cache()
    ids, due = prompts, prompts
    while ids.shape[1] < length:
        logits = model.head(model.hidden(due, cache)[:, -1]).float()
        due = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        ids = torch.cat((ids, due), 1)
    return ids
