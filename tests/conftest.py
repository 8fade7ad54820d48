"""One thread for each test process: the suites run two at a time, and threads that wait cost most."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("whet", deadline=None)  # how long something takes is measured in bench/
settings.load_profile("whet")
