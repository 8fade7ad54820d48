"""Which pages of keys and values each sequence has. Torch-free.

Full pages may be shared by sequences that begin alike; the page that is not full is a sequence's
own. A page goes back when nobody has it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FitError

Pages = NDArray[np.int32]
Copy = Callable[[int, int], None]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Sequence:
    """The memory of one sequence, `length` [token] of it in use.

    `tokens` are kept where all positions may be turned anew.
    """

    owner: "Sequences"
    slot: int
    pages: Pages = field(default_factory=lambda: np.zeros(0, np.int32))
    length: int = 0
    tokens: list[int] = field(default_factory=list[int])

    def __del__(self) -> None:
        """Give slot and pages back."""
        self.owner.take_back(self)


class Sequences:
    """Pages and slots that are free, and how many sequences have each page that is not.

    Law: a page that a sequence writes to belongs to it alone.
    """

    def __init__(self, pages: int, slots: int, page: int, copy_page: Copy, copy_slot: Copy) -> None:
        self.page, self._copy_page, self._copy_slot = page, copy_page, copy_slot
        self._free = list(range(pages - 1, -1, -1))
        self._slots = list(range(slots - 1, -1, -1))
        self._users: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return len(self._free)

    def new(self) -> Sequence:
        """Return an empty sequence."""
        if not self._slots:
            raise FitError("too many sequences at once", "let some of them end first")
        return Sequence(self, self._slots.pop())

    def reserve(self, sequence: Sequence, length: int) -> None:
        """Give a sequence the pages for so many tokens."""
        more = -(-length // self.page) - len(sequence.pages)
        if more <= 0:
            return
        if more > len(self._free):
            raise FitError(
                f"keys and values of {length} tokens need {more} more pages, {self.free} are free",
                "use a shorter context, fewer sequences, or a smaller type of cache",
            )
        fresh = [self._free.pop() for _ in range(more)]
        self._users.update(fresh)
        sequence.pages = np.concatenate([sequence.pages, np.array(fresh, np.int32)])

    def forked(self, sequence: Sequence) -> Sequence:
        """Return a sequence that begins with all of another; full pages are shared."""
        other = self.new()
        full, rest = divmod(sequence.length, self.page)
        other.pages = sequence.pages[:full].copy()
        self._users.update(other.pages.tolist())
        if rest:
            self.reserve(other, sequence.length)
            self._copy_page(int(sequence.pages[full]), int(other.pages[full]))
            self._copy_slot(sequence.slot, other.slot)
        other.length, other.tokens = sequence.length, list(sequence.tokens)
        return other

    def shorten(self, sequence: Sequence, length: int) -> None:
        """Forget what a sequence holds after its first `length` tokens."""
        full, rest = divmod(length, self.page)
        kept = full + bool(rest)
        self._release(sequence.pages[kept:])
        sequence.pages, sequence.length = sequence.pages[:kept], length
        if rest and self._users[shared := int(sequence.pages[full])] > 1:
            self._release(sequence.pages[full:])
            sequence.pages, sequence.length = sequence.pages[:full], full * self.page
            self.reserve(sequence, length)
            self._copy_page(shared, int(sequence.pages[full]))
            sequence.length = length

    def emptied(self, sequence: Sequence) -> None:
        """Forget what a sequence holds."""
        self._release(sequence.pages)
        sequence.pages, sequence.length = np.zeros(0, np.int32), 0

    def take_back(self, sequence: Sequence) -> None:
        """Take the pages and the slot of a sequence that is over."""
        self._release(sequence.pages)
        self._slots.append(sequence.slot)

    def _release(self, pages: Pages) -> None:
        for page in reversed(pages.tolist()):
            self._users[page] -= 1
            if not self._users[page]:
                del self._users[page]
                self._free.append(page)
