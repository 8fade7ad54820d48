"""Several processes on this machine, as torchrun starts them."""

import os
import subprocess
import sys

THREADS = {"OMP_NUM_THREADS": "1"}


def torchrun(size: int, *words: str) -> str:
    """Run a script or `-m MODULE`, with its arguments, in so many processes; return what they wrote."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    done = subprocess.run(
        [sys.executable, *start, *words],
        env=dict(os.environ) | THREADS,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
