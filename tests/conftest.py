"""One thread for each test process: the suites run two at a time, and threads that wait cost most."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start

import torch

torch.set_num_threads(1)
