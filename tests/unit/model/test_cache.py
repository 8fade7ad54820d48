"""The cache of keys and values, and what queries see."""

import pytest
import torch

from whet.formats.keeping import KEEPINGS, Keeping
from whet.model.cache import Cache, LayerCache, visible


def keys(start: int, stop: int) -> torch.Tensor:
    return torch.arange(start, stop).float()[None, None, :, None].expand(2, 3, -1, 4).contiguous()


@pytest.mark.parametrize("window", [None, 1, 5, 100])
def test_returns_what_the_new_tokens_may_attend_to(window: int | None):
    cache, start = LayerCache(window), 0
    for time in (7, 1, 1, 3, 40, *[1] * 60, 9):
        found, values = cache.extend(keys(start, start + time), -keys(start, start + time))
        first = 0 if window is None else max(0, start - window + 1)
        assert torch.equal(found, keys(first, start + time))
        assert torch.equal(values, -found)
        start += time
        assert cache.length == start


@pytest.mark.parametrize("window", [None, 5, 100])
@pytest.mark.parametrize("keeping", KEEPINGS)
def test_what_is_kept_does_not_depend_on_cuts(keeping: Keeping, window: int | None):
    x = torch.randn(1, 2, 200, 16, generator=torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []
    for cuts in ([200], [1] * 200, [63, 1, 1, 70, 65]):
        cache, start = Cache((window,), keeping=keeping), 0
        for count in cuts:
            for piece in cache.pieces(torch.arange(start, start + count)[None]):
                stop = start + piece.shape[1]
                found, _ = cache[0].extend(x[:, :, start:stop], x[:, :, start:stop])
                start = stop
        assert cache.length == 200
        kept.append(found[:, :, -min(found.shape[2], window or 200) :])
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_a_window_bounds_the_memory():
    cache, bounds = LayerCache(8), set()
    for start in range(2000):
        cache.extend(keys(start, start + 1), keys(start, start + 1))
        bounds.add(cache.nbytes)
    assert max(bounds) < 2 * 2 * 3 * 4 * 4 * 64  # two tensors, 64 tokens


@pytest.mark.parametrize("window", [None, 1, 3, 10])
@pytest.mark.parametrize(("time", "past"), [(1, 1), (1, 9), (4, 4), (4, 9), (9, 9)])
def test_a_query_sees_itself_and_what_is_before_it_in_the_window(
    time: int, past: int, window: int | None
):
    seen = visible(time, past, window)
    for row in range(time):
        at = past - time + row
        first = 0 if window is None else max(0, at - window + 1)
        expected = [first <= key <= at for key in range(past)]
        assert (expected if seen is None else seen[row].tolist()) == expected


def test_tokens_are_kept_until_positions_have_turned():
    cache, tokens = Cache((None, 4), bound=5), torch.arange(9)[None]
    assert cache.due(tokens[:, :3]).tolist() == [[0, 1, 2]]
    cache[0].extend(keys(0, 3), keys(0, 3))
    assert cache.due(tokens[:, 3:5]).tolist() == [[3, 4]]
    cache[0].extend(keys(3, 5), keys(3, 5))
    assert cache.due(tokens[:, 5:6]).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert (cache.length, cache[1].window) == (0, 4)
    cache[0].extend(keys(0, 6), keys(0, 6))
    assert cache.due(tokens[:, 6:7]).tolist() == [[6]]
