"""One thread for each test process: the suites run two at a time, and threads that wait cost most."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start
os.environ["WHET_PATIENCE"] = "0"  # tests run side by side: no moment is calm

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("whet", deadline=None)  # how long something takes is measured in bench/
settings.load_profile("whet")


@pytest.fixture(scope="session", autouse=True)
def readings_in_this_process() -> Iterator[None]:
    """Compare readings of sources here: a process of its own would import transformers each time."""
    from whet.recipe import reading

    def asked(folder: Path, blocks: int) -> dict[str, float]:
        return asdict(reading.compare_reading(folder, blocks))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_asked", asked)
        yield
