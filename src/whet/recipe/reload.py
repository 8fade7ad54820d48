"""Reload a written folder in a fresh process and compare what it computes with what was in memory.

Nothing is published before this passes: a model that does not load, or that computes something else
than what was measured, never reaches the user.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from whet.base.errors import QualityError, UnsupportedError
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.subprocesses import failure_reason
from whet.model import decoder
from whet.model.family import find
from whet.model.opened import opened
from whet.store.array import stored
from whet.store.checkpoint import Checkpoint
from whet.store.dtypes import tensor_of
from whet.store.shard import Shard

LARGEST_ERROR = 1e-3  # relative to the logits' spread


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How far a reloaded model's logits are from those in memory, and how often the first choice agrees."""

    error: float
    agreement: float

    def record(self) -> Record:
        """Return the evidence."""
        return Record(
            "verify",
            "",
            {
                "max_relative_error": Quantity(self.error, "1", "max |Δ logit| / sd of the logits"),
                "greedy_tokens_equal": Quantity(
                    self.agreement, "1", "share of equal first choices"
                ),
            },
            notes={"how": "reloaded by a fresh process, one block at a time"},
        )


def reload(folder: Path, probe: Path) -> Reloaded:
    """Compare in a fresh process; raise `QualityError` if the folder computes something else."""
    arguments = [str(folder), str(probe), str(torch.get_num_threads())]
    command = [sys.executable, "-m", "whet.recipe.reload", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = failure_reason(done.returncode, done.stderr)
        raise QualityError(f"the written folder does not load: {why}", f"It is kept at {folder}.")
    found = Reloaded(**json.loads(done.stdout))
    if not found.error <= LARGEST_ERROR:
        raise QualityError(
            f"the reloaded model's logits differ by {found.error:.2g} of their spread "
            f"(at most {LARGEST_ERROR:g})",
            f"It is kept at {folder}.",
        )
    return found


@torch.inference_mode()
def logits(folder: Path, ids: Tensor) -> Tensor:
    """Return the logits of a saved folder, holding one block at a time."""
    source = Checkpoint(opened(folder))
    try:
        family = find(source.config)
    except UnsupportedError:
        from whet.model.foreign import Foreign

        return Foreign(folder).outputs(ids)
    architecture = family.architecture(source.config, source.names())
    hidden = decoder.embedding(source, family, architecture)(ids)
    for layer in range(architecture.layers):
        hidden = decoder.block(source, family, architecture, layer)(hidden)
    return decoder.head(source, family, architecture)(hidden)


def compared(expected: Tensor, found: Tensor) -> Reloaded:
    """Return the largest difference in units of the logits' spread, and the share of equal choices."""
    error = float((found - expected).abs().max() / expected.std())
    agreement = float((found.argmax(-1) == expected.argmax(-1)).float().mean())
    return Reloaded(error, agreement)


def _main(folder: str, probe: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    shard = Shard(Path(probe))
    ids, expected = (tensor_of(stored(shard, name)) for name in ("ids", "logits"))
    print(json.dumps(asdict(compared(expected, logits(Path(folder), ids)))))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
