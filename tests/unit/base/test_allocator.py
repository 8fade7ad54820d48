import gc
from collections.abc import Callable

import numpy as np
import pytest

from whet.base.allocator import release, retain


@pytest.mark.parametrize("say", [retain, release])
def test_arrays_come_and_go_as_before(say: Callable[[int], None]) -> None:
    say(1 << 20)
    for size in (1 << 10, 1 << 24, 1 << 26):
        array = np.arange(size, dtype=np.uint8)
        assert int(array[-1]) == 255
        del array
    gc.collect()
