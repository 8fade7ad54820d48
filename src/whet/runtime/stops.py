"""Text that stops before a stop string, and never shows the beginning of one. Needs no torch."""

from collections.abc import Iterable

from whet.base.errors import RecipeError


class Stops:
    """Holds text back until it cannot be the beginning of a stop string.

    The stop string that is complete first wins; of those that end together, the longest.
    Law: what comes out does not depend on how the text was cut into pieces.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self.strings = tuple(strings)
        if "" in self.strings:
            raise RecipeError("a stop string is empty", "Give at least one character, or none.")
        self.found: str | None = None
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take more text in and return what may be shown; nothing after a stop string was found."""
        if self.found is not None:
            return ""
        self._held += piece
        match = min(self._matches(), default=None)
        if match is None:
            return self._release(len(self._held) - self._suspect())
        _, start, self.found = match
        return self._release(start)

    def flush(self) -> str:
        """Return what was held back, at the end of the text."""
        return "" if self.found is not None else self._release(len(self._held))

    def _matches(self) -> list[tuple[int, int, str]]:
        """Return (end, start, string) of the first match of each stop string."""
        places = ((self._held.find(string), string) for string in self.strings)
        return [(start + len(s), start, s) for start, s in places if start >= 0]

    def _suspect(self) -> int:
        """Return how many of the last characters could begin a stop string."""
        longest = max((len(string) for string in self.strings), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(string.startswith(self._held[-length:]) for string in self.strings):
                return length
        return 0

    def _release(self, count: int) -> str:
        shown, self._held = self._held[:count], self._held[count:]
        return shown
