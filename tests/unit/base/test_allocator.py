import gc

import numpy as np

from whet.base.allocator import retain


def test_arrays_come_and_go_as_before() -> None:
    retain(1 << 20)
    for size in (1 << 10, 1 << 24, 1 << 26):
        array = np.arange(size, dtype=np.uint8)
        assert int(array[-1]) == 255
        del array
    gc.collect()
