"""A model's answer as text that comes piece by piece. Needs no torch."""

from collections.abc import Iterator
from typing import Literal, Protocol, runtime_checkable

from whet.runtime.stops import Stops

Finish = Literal["stop", "length", "context"]


@runtime_checkable
class Decoder(Protocol):
    """Tokens to text, one at a time."""

    def push(self, index: int) -> str:
        """Take a token; return the text that is now complete."""
        ...

    def finish(self) -> str:
        """Return what is left."""
        ...


class Reply(Iterator[str]):
    """Pieces of text, never half a character and never a part of a stop string.

    `text` and `ids` are what has come so far. `finish` says why it ended: "stop" (a stop string or
    the model's own end), "length" (enough tokens), "context" (the model can read no more); it is
    None while there may be more.
    """

    def __init__(
        self, tokens: Iterator[int], decoder: Decoder, stops: Stops, limit: int, room: int
    ) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.finish: Finish | None = None
        self._limit, self._room, self._stops = limit, room, stops
        self._pieces = self._run(tokens, decoder)

    def __next__(self) -> str:
        """Return the next piece."""
        piece = next(self._pieces)
        self.text += piece
        return piece

    def read(self) -> str:
        """Return the whole text."""
        for _ in self:
            pass
        return self.text

    def _run(self, tokens: Iterator[int], decoder: Decoder) -> Iterator[str]:
        for token in tokens:
            self.ids.append(token)
            if piece := self._stops.feed(decoder.push(token)):
                yield piece
            if self._stops.found is not None:
                self.finish = "stop"
                return
        if piece := self._stops.feed(decoder.finish()) + self._stops.flush():
            yield piece
        self.finish = self._reason()

    def _reason(self) -> Finish:
        if self._stops.found is not None or len(self.ids) < min(self._limit, self._room):
            return "stop"
        return "length" if self._limit <= self._room else "context"
