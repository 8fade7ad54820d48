"""How threads of OpenMP, which torch computes with, wait for each other."""

import os
import sys

CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's own choice stays


def sleep_while_waiting() -> None:
    """Let threads that wait at the end of a parallel loop sleep; called before torch is imported.

    OpenMP lets them spin. Where another process has the processor of the thread that they wait for,
    they then burn what it needs: the same work took forty times as long beside a few busy processes.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOSEN):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
