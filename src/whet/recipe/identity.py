"""What a run depends on: if any of it changes, the bytes of the result may change.

Law: a run resumed with a changed field is refused, naming every field that changed.
"""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from whet.base.errors import IdentityError
from whet.store.json_file import read_json
from whet.version import __version__

Identity = Mapping[str, str]


def identity(
    recipe_text: str, source_digests: Mapping[str, str], calibration_digest: str
) -> Identity:
    """Return the fields that a resumed run must share with the one that it continues."""
    return {
        "recipe": hashlib.sha256(recipe_text.encode()).hexdigest(),
        "calibration": calibration_digest,
        "whet": __version__,
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "tokenizers": version("tokenizers"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    } | {f"source/{name}": digest for name, digest in sorted(source_digests.items())}


AGAIN = "Restore them, or start anew with --resume never: only the part of that run is lost."
MEANINGS = {"recipe": "the recipe or its settings", "calibration": "the calibration text"}


def check(path: Path, mine: Identity, mend: str = AGAIN) -> None:
    """Compare with the identity that a started run has left; raise, with a `mend`, if a field differs."""
    theirs: Identity = read_json(path)
    changed = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
    if changed:
        raise IdentityError(
            f"cannot resume {path.parent}: changed since it was started: "
            f"{', '.join(_meaning(name, mine, theirs) for name in changed)}",
            mend,
        )


def _meaning(name: str, mine: Identity, theirs: Identity) -> str:
    """Return what a field stands for, and how it differs where people can read that."""
    if name in MEANINGS:
        return f"{MEANINGS[name]} ({name})"
    if name.startswith("source/"):
        return f"{name.removeprefix('source/')} of the source ({name})"
    return f"{name} ({theirs.get(name, 'none')} then, {mine.get(name, 'none')} now)"
