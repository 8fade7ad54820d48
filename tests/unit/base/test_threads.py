import os
import subprocess
import sys

import pytest

ASK = "import os; from whet.cli.main import code; code({words}); print(os.environ.get('OMP_WAIT_POLICY'))"


def policy(asked: str, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "KMP"))}
    command = [sys.executable, "-c", asked]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_threads_that_wait_sleep_before_torch_is_imported() -> None:
    assert policy(ASK.format(words=["list", "recipes"])) == "PASSIVE"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_a_user_has_chosen_stays(name: str) -> None:
    found = policy(ASK.format(words=["list", "recipes"]), **{name: "7"})
    assert found == ("7" if name == "OMP_WAIT_POLICY" else "None")
