"""How fast memory is read on this machine, and how much of it writing a token needs. Torch-free."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from math import fsum
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from whet.kernels.native import missing, native
from whet.measure.folder import parts
from whet.model.family import find
from whet.model.opened import opened

PROBE = 256 << 20  # [byte], far more than the caches hold
BY_KERNEL = f"{PROBE >> 20} MiB read by all threads with vector loads, in the same rounds"
BY_NUMPY = f"maximum of {PROBE >> 20} MiB by all threads with numpy, in the same rounds"


def how() -> str:
    """Return how `bandwidth` reads here."""
    return BY_NUMPY if missing() else BY_KERNEL


def bandwidth(threads: int) -> float:
    """Return how fast memory is read by so many threads [byte/s]: by a kernel, or by numpy."""
    if missing() is None:
        return float(native().read_bandwidth(PROBE, threads, 1))
    return by_numpy(threads)


def by_numpy(threads: int) -> float:
    """Return how fast threads find the maxima of their parts of a buffer [byte/s].

    A maximum takes one vector instruction for 64 bytes, so that memory is what they wait for.
    """
    pieces = np.array_split(_buffer(), threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(len, pieces))  # threads start before the clock does
        start = perf_counter()
        list(pool.map(np.max, pieces))
        return PROBE / (perf_counter() - start)


@cache
def _buffer() -> NDArray[np.int32]:
    return np.ones(PROBE // 4, np.int32)


def token_bytes(path: Path) -> float:
    """Return how much of a folder's tensors is read to write a token [byte].

    Of an embedding that is no head too it is a row, which is not counted; of experts it is the
    share that is active. Keys and values come on top.
    """
    folder = opened(path)
    family = find(folder.config)
    arch = family.architecture(folder.config, folder.tensors.keys())
    sizes = {name: stored.info.nbytes for name, stored in folder.tensors.items()}
    held, read = parts(sizes), dict.fromkeys(sizes, 1.0)
    if not arch.tied:
        read |= dict.fromkeys(held.get(family.embed_site(arch).module, ()), 0.0)
    if arch.experts is not None:
        sites = [site for site in family.sites(arch) if ".experts." in site.role]
        names = chain(*((*held.get(site.module, ()), site.tensor) for site in sites))
        share = arch.experts.active / arch.experts.count
        read |= dict.fromkeys((name for name in names if name in sizes), share)
    return fsum(read[name] * nbytes for name, nbytes in sizes.items())
