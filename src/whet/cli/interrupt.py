"""Signals: the first asks a long run to stop where it can be resumed, the second ends it."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from whet.cli.failure import TerminatedError
from whet.cli.output import tell

HANDLED = (signal.SIGINT, signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> None:
    """End the command at once, wherever it is."""
    del frame
    raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt


class Stop:
    """Whether somebody has asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Return whether to stop before the next block."""
        return self.asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Note the first request; carry out the second one."""
        if self.asked:
            _end(number, frame)
        self.asked = True
        tell(
            "whet: stopping after this block, so that the run can go on later; again: stop at once"
        )


@contextmanager
def terminable() -> Generator[None]:
    """Let SIGTERM end the command in order, as an interrupt does."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stoppable() -> Generator[Stop]:
    """Turn the first signal into a request to stop."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in HANDLED}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
