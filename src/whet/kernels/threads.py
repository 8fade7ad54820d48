"""Work that is done side by side, a thread for each job, where its steps are too short to share."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

import torch

Made = TypeVar("Made")
_given: ContextVar[int] = ContextVar("_given", default=0)


def workers() -> int:
    """Return how many threads native code takes: those that torch had before jobs were given one each."""
    return _given.get() or torch.get_num_threads()


@contextmanager
def torch_threads(count: int) -> Generator[None]:
    """Let torch compute with so many threads; native code goes on with all."""
    before = torch.get_num_threads()
    token = _given.set(workers())
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.reset(token)


def concurrent(jobs: Sequence[Callable[[], Made]]) -> list[Made]:
    """Return what each job returns: as many at a time as torch has threads, each computed by one.

    Law: what a job returns does not depend on the others, nor on how many threads there are.
    """
    threads = torch.get_num_threads()
    if min(threads, len(jobs)) < 2:
        with torch_threads(1):
            return [job() for job in jobs]
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def alone(job: Callable[[], Made]) -> Made:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            _given.set(1)
            return job()

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
            running = [pool.submit(copy_context().run, alone, job) for job in jobs]
            return [one.result() for one in running]
    finally:
        torch.set_num_threads(threads)
