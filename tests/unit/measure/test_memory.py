import subprocess
import sys

import numpy as np
import pytest

from whet.base.errors import FitError, FolderError
from whet.measure.memory import child, running
from whet.runtime.engine import load


def test_a_process_does_not_count_the_peak_of_its_parent() -> None:
    ballast = np.ones(60_000_000)  # 480 MB
    code = "from whet.base.machine import peak_rss; print(peak_rss())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < ballast.nbytes / 4


def test_the_memory_of_a_folder_is_measured_in_a_process_of_its_own() -> None:
    found = running(load("demo"))
    assert 10e6 < found["peak_rss_model"].value < found["peak_rss"].value
    assert found["peak_rss_model"].value < 120e6


def test_a_process_that_is_killed_or_fails_says_so() -> None:
    with pytest.raises(FitError, match="signal 9"):
        child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    with pytest.raises(FolderError, match="ValueError: broken"):
        child([sys.executable, "-c", "raise ValueError('broken')"])
