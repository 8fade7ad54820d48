"""Several processes that train one model together: each takes some of the parts of a step.

Started by `torchrun`. Gradients are added up by all processes after the backward pass (data
parallelism, arXiv:2006.15704), or in it where the model is divided among them (`train/sharded.py`),
so that all of them take the same step.
"""

import atexit
import os
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from whet.base.errors import RecipeError, StoppedError

PATIENCE = timedelta(days=30)  # with which a process waits for the first one's own work
PAUSE = 0.05  # between two looks at whether it has spoken [s]
END = -1  # what it says at the end


@dataclass(frozen=True, slots=True)
class Team:
    """This process's number among `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def announced(cls) -> "Team":
        """Return the team that `torchrun` has started, without waiting for its other members."""
        if not distributed.is_available() or "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @classmethod
    def joined(cls) -> "Team":
        """Return the team that `torchrun` has started, or this process alone."""
        team = cls.announced()
        if team.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=PATIENCE)
            atexit.register(_left)
        return team

    def alone(self, verb: str) -> None:
        """Refuse to be several processes."""
        if self.size > 1:
            raise RecipeError(
                f"torchrun has started {self.size} processes, and whet {verb} is one",
                f"Start whet {verb} without torchrun: it is for whet compress with steps that train.",
            )

    @property
    def first(self) -> bool:
        """Return whether this process writes what all of them know."""
        return self.rank == 0

    def refuses(self, parts: int) -> str | None:
        """Return why a step of so many parts cannot be shared; None if it can."""
        if parts % self.size == 0:
            return None
        told = f"a step of {parts} {'part' if parts == 1 else 'parts'} cannot be shared by"
        return f"{told} {self.size} processes; set parts to a multiple of {self.size}"

    def share(self, parts: int) -> range:
        """Return the parts of a step that are this process's own."""
        if why := self.refuses(parts):
            raise RecipeError(why)
        each = parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def agreed(self, *, asked: bool) -> bool:
        """Return whether any process was asked; so all of them stop before the same step."""
        if self.size == 1:
            return asked
        whole = torch.tensor(float(asked))
        distributed.all_reduce(whole)
        return bool(whole)

    def summed(self, value: float, parameters: Iterable[nn.Parameter]) -> float:
        """Return the sum of a number over all processes, and add up gradients in place."""
        if self.size == 1:
            return value
        for parameter in parameters:
            assert parameter.grad is not None
            distributed.all_reduce(parameter.grad)
        whole = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(whole)
        return float(whole)

    def led(self, work: Callable[[], object]) -> None:
        """Let the first process do some work while the others wait; all stop if it stops there."""
        if self.size == 1:
            work()
            return
        stopped: StoppedError | None = None
        if self.first:
            try:
                work()
            except StoppedError as error:
                stopped = error
        if self.agreed(asked=stopped is not None):
            raise stopped or StoppedError(
                "the first process has stopped", "Run the same command to go on."
            )

    def say(self, number: int) -> None:
        """Tell the others, who are listening, which piece of work comes next, or `END`."""
        if self.size > 1:
            distributed.broadcast(torch.tensor(number), 0)

    def heard(self) -> int:
        """Return what the first process says next; a signal still reaches a process that waits."""
        number = torch.tensor(0)
        with complete():
            waiting = distributed.broadcast(number, 0, async_op=True)
            assert waiting is not None
            while not waiting.is_completed():
                time.sleep(PAUSE)
            waiting.wait()
        return int(number)


def _left() -> None:
    """End the group before Python ends: threads that wait in it could bring the process down."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def complete() -> Generator[None]:
    """Tell in plain words that another process of the team has gone."""
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error):  # which raises no errors of its own kind
            raise
        raise StoppedError(
            "another process of this run has ended", "See what it said; run again to go on."
        ) from error
