"""Shares in whole numbers whose sum is exact."""

from collections.abc import Mapping


def whole(wanted: Mapping[int, float], bounds: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Return whole numbers nearest to those wanted, within bounds, that sum to zero.

    What is left after rounding goes where rounding has taken most away.
    """
    found = {key: min(max(round(x), bounds[key][0]), bounds[key][1]) for key, x in wanted.items()}
    while rest := sum(found.values()):
        step = -1 if rest > 0 else 1
        free = [k for k, x in found.items() if bounds[k][0] <= x + step <= bounds[k][1]]
        best = max(free, key=lambda key: (step * (wanted[key] - found[key]), -key))
        found[best] += step
    return found
