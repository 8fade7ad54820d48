"""The commands of `make demo` and what they print: `results/transcript.txt`, for the README."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "transcript.txt"
OPENING = '"It was a dark night, and the"'
COMMANDS = (
    "whet compress demo --recipe int4 -o demo-int4",
    "whet measure demo-int4 --against demo",
    f"whet run demo {OPENING} --max-tokens 60 --seed 1",
    f"whet run demo-int4 {OPENING} --max-tokens 60 --seed 1",
)


def printed(command: str, folder: str) -> str:
    """Run a command and return it with everything it writes."""
    words = [sys.executable, "-m", *shlex.split(command)]
    settings = os.environ | {"PYTHONUNBUFFERED": "1"}
    both = subprocess.STDOUT
    done = subprocess.run(
        words, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=both, text=True, check=True
    )
    return f"$ {command}\n{done.stdout.rstrip()}\n"


def main() -> None:
    """Write the transcript, and keep the folder if a place for it is given."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = sys.argv[1] if len(sys.argv) > 1 else place
        RESULTS.write_text("\n".join(printed(command, folder) for command in COMMANDS))


if __name__ == "__main__":
    main()
