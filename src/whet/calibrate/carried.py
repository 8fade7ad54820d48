"""Calibration samples on their way through a block."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from whet.calibrate.hidden_states import Dtype, HiddenStates
from whet.model.block import Moment


@dataclass(frozen=True, slots=True)
class _Stand:
    """A tap, what its linears read there, and the residual stream there."""

    tap: str
    x: HiddenStates
    stream: HiddenStates


class Carried:
    """What enters a block, and what its linears read at the tap that the samples have come to.

    All of it is kept, so what stands before that tap is computed once for a whole block.
    What linears read is stored as `dtype`; BF16 loses nothing where they round their input to it.
    Law: statistics are those of samples that start before the block each time.
    """

    def __init__(self, inputs: HiddenStates, dtype: Dtype = "F32") -> None:
        self.inputs = inputs
        self.dtype: Dtype = dtype
        self._stand: _Stand | None = None
        self._next: _Stand | None = None

    @property
    def tap(self) -> str | None:
        """Return where the samples stand; None before the block."""
        return None if self._stand is None else self._stand.tap

    def read(self, start: int, stop: int) -> tuple[Tensor, Moment | None]:
        """Return the residual stream where the samples stand, and the moment, if within the block.

        They may be the very numbers that are kept, and are not to be written over.
        """
        if self._stand is None:
            return self.inputs.view(start, stop), None
        stream, x = self._stand.stream.view(start, stop), self._stand.x.view(start, stop)
        return stream, Moment(self._stand.tap, x, stream)

    def write(self, start: int, moment: Moment, came: Tensor) -> None:
        """Keep where some samples are now; `came` is the stream that they were read with."""
        if moment.tap == self.tap:
            return
        kept = moment.stream is came
        if self._next is None:
            held = self._stand.stream if self._stand else self.inputs
            stream = held if kept else self._file(f"{moment.tap}.stream", moment.stream)
            x = self._file(moment.tap, moment.x, self.dtype)
            self._next = _Stand(moment.tap, x, stream)
        self._next.x.write(start, moment.x)
        if not kept:
            self._next.stream.write(start, moment.stream)

    def arrive(self) -> None:
        """Stand where the samples have been written, once all of them are there."""
        if self._next is not None:
            self._leave(self._next)
            self._stand, self._next = self._next, None

    def rewind(self, taps: Sequence[str] = (), tap: str | None = None) -> None:
        """Stand before the block again; with a `tap`, only if the samples have passed it."""
        if tap is not None and self.tap is not None and taps.index(self.tap) <= taps.index(tap):
            return
        self._leave(None)
        self._stand = None

    def delete(self) -> None:
        """Give all memory back and remove all files."""
        self.rewind()
        self.inputs.delete()

    def _file(self, name: str, like: Tensor, dtype: Dtype = "F32") -> HiddenStates:
        path = self.inputs.path.with_name(f"{self.inputs.path.stem}.{name}.bin")
        return self.inputs.like(path, like.shape[2], dtype)

    def _leave(self, onward: _Stand | None) -> None:
        """Remove the files of where the samples stand, but for those that are used further."""
        if self._stand is not None:
            used = (self.inputs,) if onward is None else (self.inputs, onward.x, onward.stream)
            for states in {self._stand.x, self._stand.stream}.difference(used):
                states.delete()
