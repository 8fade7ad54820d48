"""Keys and values of the tokens so far, so that each token is computed once."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.formats.keep import full_keys, full_values, token_by_token
from whet.formats.keeping import PAGE, Keeping, coded_by_page


class _Row:
    """A tensor that grows along time; room is made ahead, so each token costs the same."""

    def __init__(self) -> None:
        self.room: Tensor | None = None
        self.first = self.last = 0

    def append(
        self, more: Float[Tensor, "batch kv time dim"], keep: int | None
    ) -> Float[Tensor, "batch kv past dim"]:
        """Return what is held and `more`; of what is held only the last `keep` tokens stay."""
        if keep is not None:
            self.first = max(self.first, self.last - keep)
        stop = self.last + more.shape[2]
        if self.room is None or stop > self.room.shape[2]:
            stop = self._move(more, stop - self.first)
        assert self.room is not None
        self.room[:, :, self.last : stop] = more
        self.last = stop
        return self.room[:, :, self.first : self.last]

    def drop(self, count: int) -> None:
        """Forget the last `count` tokens."""
        self.last -= count

    def change(self, count: int, made: Callable[[Tensor], Tensor]) -> None:
        """Put what `made` makes of the last `count` tokens in their place."""
        assert self.room is not None
        held = self.room[:, :, self.last - count : self.last]
        held.copy_(made(held))

    def _move(self, more: Tensor, needed: int) -> int:
        batch, kv, _, dim = more.shape
        room = more.new_empty(batch, kv, needed + max(32, needed // 4), dim)
        if self.room is not None:
            held = self.room[:, :, self.first : self.last]
            room[:, :, : held.shape[2]] = held
        self.room, self.first, self.last = room, 0, self.last - self.first
        return needed


class LayerCache:
    """The keys and values of one block; with a `window`, of its last tokens only [token].

    `keeping` says what they are rounded to; None: not at all. Where full pages are coded, tokens that
    are taken in at once must be of one page (`Cache.pieces`).
    Law: decoding token by token with a cache equals computing the whole sequence at once.
    """

    def __init__(self, window: int | None = None, keeping: Keeping | None = None) -> None:
        self.window = window
        self.keeping: Keeping | None = keeping
        self.length = 0  # tokens seen
        self._keys, self._values = _Row(), _Row()

    def extend(
        self, keys: Float[Tensor, "batch kv time dim"], values: Float[Tensor, "batch kv time dim"]
    ) -> tuple[Float[Tensor, "batch kv past dim"], Float[Tensor, "batch kv past dim"]]:
        """Take in new tokens and return all that these may attend to, themselves last."""
        keep = None if self.window is None else self.window - 1
        kind = self.keeping
        if kind is not None:
            keys, values = token_by_token(keys, kind), token_by_token(values, kind)
        if kind is not None and coded_by_page(kind):
            keep = None  # a page is coded as a whole
            if self.length and self.length % PAGE == 0:
                self._keys.change(PAGE, lambda page: full_keys(page, kind))
                self._values.change(PAGE, lambda page: full_values(page, kind))
        self.length += keys.shape[2]
        return self._keys.append(keys, keep), self._values.append(values, keep)

    def shorten(self, length: int) -> None:
        """Forget the tokens after the first `length`. Not with a window, nor where pages are coded."""
        for row in (self._keys, self._values):
            row.drop(self.length - length)
        self.length = length

    @property
    def nbytes(self) -> int:
        """Memory that is held [byte]."""
        rooms = (self._keys.room, self._values.room)
        return sum(room.nbytes for room in rooms if room is not None)


class Cache(list[LayerCache]):
    """The caches of all blocks, for one batch of sequences.

    Where a model turns all positions anew beyond some length (`bound` [token]), the tokens are
    kept until then, so that they can be computed again.
    """

    def __init__(
        self,
        windows: tuple[int | None, ...],
        bound: int | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        super().__init__(LayerCache(window, keeping) for window in windows)
        self.bound = bound
        self.keeping: Keeping | None = keeping
        self._tokens: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self[0].length

    def shorten(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        for layer in self:
            if length < layer.length:
                layer.shorten(length)

    def pieces(
        self, tokens: Int64[Tensor, "batch time"]
    ) -> tuple[Int64[Tensor, "batch some"], ...]:
        """Return tokens cut where pages end, if full pages are coded."""
        if not coded_by_page(self.keeping):
            return (tokens,)
        first = min(PAGE - self.length % PAGE, tokens.shape[1])
        rest = tokens[:, first:]
        return tokens[:, :first], *(rest.split(PAGE, 1) if rest.shape[1] else ())

    def due(self, tokens: Int64[Tensor, "batch time"]) -> Int64[Tensor, "batch due"]:
        """Return the tokens to compute now: these, or on crossing the bound all from the start."""
        if self.bound is None or self.length > self.bound:
            return tokens
        known = tokens if self._tokens is None else torch.cat((self._tokens, tokens), 1)
        if known.shape[1] <= self.bound:
            self._tokens = known
            return tokens
        self._tokens = None
        self[:] = [LayerCache(held.window, self.keeping) for held in self]
        return known


def visible(
    time: int, past: int, window: int | None, device: torch.device | None = None
) -> Tensor | None:
    """Return which of `past` keys the last `time` queries see, (time, past), or `None` for all."""
    ahead = past - time
    if time == 1 and (window is None or past <= window):
        return None
    query = torch.arange(ahead, past, device=device)[:, None]
    key = torch.arange(past, device=device)[None]
    seen = key <= query
    return seen if window is None else seen & (key > query - window)
