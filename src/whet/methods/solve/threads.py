"""How many threads a solver uses: torch one for a small matrix, whose steps are too short to share.

The native solver always takes all that the caller had: its results do not depend on their number.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

import torch

SMALL = 1 << 21  # weights
Made = TypeVar("Made")
_given: ContextVar[int] = ContextVar("_given", default=0)


@contextmanager
def threads_for(weights: int) -> Generator[None]:
    """Solve with one thread if there are few weights; also, results then do not depend on them."""
    before = torch.get_num_threads()
    token = _given.set(workers())
    torch.set_num_threads(1 if weights <= SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.reset(token)


def workers() -> int:
    """Return how many threads the native solver takes: those that torch had outside `threads_for`."""
    return _given.get() or torch.get_num_threads()


def concurrent(jobs: Sequence[Callable[[], Made]], weights: Sequence[int]) -> list[Made]:
    """Return what jobs on so many weights each return: side by side, a thread each, if all are small.

    Law: what a job returns does not depend on the others, nor on how many threads there are.
    """
    threads = torch.get_num_threads()
    if min(threads, len(jobs)) < 2 or max(weights) > SMALL:
        return [job() for job in jobs]
    inference = torch.is_inference_mode_enabled()

    def alone(job: Callable[[], Made]) -> Made:
        with torch.inference_mode(inference):
            return job()

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
            running = [pool.submit(copy_context().run, alone, job) for job in jobs]
            return [one.result() for one in running]
    finally:
        torch.set_num_threads(threads)
