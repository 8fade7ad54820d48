import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from whet.measure.rest import line

SECONDS = st.floats(-1, 1, allow_subnormal=False)


@given(st.lists(st.tuples(st.integers(1, 600).map(float), SECONDS), min_size=1, max_size=6))
def test_the_line_is_the_nearest_that_starts_and_rises_above_zero(
    points: list[tuple[float, float]],
) -> None:
    x, y = np.array(points).T

    def apart(start: float, slope: float) -> float:
        return float(np.linalg.norm(start + slope * x - y))

    best, least = nnls(np.stack([np.ones_like(x), x], axis=1), y)
    assert min(line(points)) >= 0 <= min(best)
    assert apart(*line(points)) <= least + 1e-6


def test_a_line_is_found_again() -> None:
    start, slope = line([(n, 0.002 + 3e-6 * n) for n in (16.0, 64.0, 256.0)])
    np.testing.assert_allclose((start, slope), (0.002, 3e-6))
