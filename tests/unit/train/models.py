"""Tiny models to train, and what a pass is given."""

from collections.abc import Callable
from pathlib import Path

import torch
from tests.unit.model.tiny import source
from torch import Tensor

from whet.model.source import InMemory
from whet.passes.model_pass import Task

VOCAB = 61


def text(samples: int, time: int) -> Tensor:
    """Return windows of a text in which each token tells the next but one."""
    generator = torch.Generator().manual_seed(3)
    start = torch.randint(0, VOCAB, (samples, 2), generator=generator)
    ids = [start[:, 0], start[:, 1]]
    while len(ids) < time:
        ids.append((3 * ids[-2] + 7) % VOCAB)
    return torch.stack(ids, 1)


def task(
    work: Path,
    student: InMemory | None = None,
    teacher: InMemory | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Task:
    original = source("llama")
    return Task(
        source=student or original,
        teacher=teacher or original,
        windows=text,
        work=work,
        seed=5,
        advance=lambda share, what: None,
        stopped=stopped,
    )


def noised(original: InMemory, size: float, seed: int = 0) -> InMemory:
    """Return a source whose matrices have lost some of what they know."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: x if x.dim() < 2 else x + size * torch.randn(x.shape, generator=generator).to(x.dtype)
        for name, x in original.tensors.items()
    }
    return InMemory(original.config, tensors)


def with_tensors(original: InMemory, changed: dict[str, Tensor]) -> InMemory:
    return InMemory(original.config, dict(original.tensors) | changed)
