"""What a peer's adapter receives (a job) and hands over (a dense folder with ``peer.json``)."""

import json
import re
import resource
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from windows import spread, windows

_BLOCK_MATRIX = re.compile(r"\.layers\.\d+\..*\.weight$")


@dataclass(frozen=True)
class Job:
    """One setting of one peer, to be applied to one model folder."""

    model: Path
    calibration: Path
    out: Path
    package: str
    bits: int
    group: int
    samples: int
    length: int
    options: dict[str, Any]

    def tokens(self) -> torch.Tensor:
        """The calibration windows, ``[sample, token]``; the same for every peer."""
        return spread(windows(self.model, self.calibration, self.length), self.samples)


def received() -> Job:
    """The job in the JSON file named by the only argument."""
    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    paths = {name: Path(fields.pop(name)) for name in ("model", "calibration", "out")}
    return Job(**paths, **fields)


def block_matrices(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the blocks' linears by name, in float32."""
    return {
        name: tensor.float()
        for name, tensor in _tensors(folder).items()
        if tensor.ndim == 2 and _BLOCK_MATRIX.search(name)
    }


def hand_over(
    job: Job,
    weights: dict[str, torch.Tensor],
    seconds: float,
    bits_per_weight: float | None = None,
) -> None:
    """Write the model with dequantized block linears, in float32, and the facts of the run.

    `bits_per_weight` is what was counted, where the setting alone does not say it. Every other
    tensor is the original one. Refused: a missing or foreign name, a wrong shape, or a group of
    more values than the bits allow.
    """
    expected = block_matrices(job.model)
    if weights.keys() != expected.keys():
        raise ValueError(
            f"names differ from the block linears: {sorted(weights.keys() ^ expected.keys())}"
        )
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise ValueError(
                f"{name}: found shape {tuple(weight.shape)}, expected {tuple(expected[name].shape)}"
            )
        if (found := _levels(weight, job.group)) > 2**job.bits:
            raise ValueError(
                f"{name}: found {found} values in a group of {job.group}, "
                f"expected at most {2**job.bits}"
            )
    _write_folder(job, weights)
    _write_facts(job, seconds, bits_per_weight)


def _write_folder(job: Job, weights: dict[str, torch.Tensor]) -> None:
    job.out.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.float() for name, tensor in _tensors(job.model).items()}
    tensors |= {name: weight.float().contiguous() for name, weight in weights.items()}
    save_file(tensors, job.out / "model.safetensors", metadata={"format": "pt"})
    for file in job.model.glob("*.json"):
        if not file.name.endswith(".index.json"):
            shutil.copyfile(file, job.out / file.name)
    config = json.loads((job.model / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    (job.out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _write_facts(job: Job, seconds: float, bits_per_weight: float | None) -> None:
    facts = {
        "version": version(job.package),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "seconds": seconds,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    if bits_per_weight is not None:
        facts["bits_per_weight"] = bits_per_weight
    (job.out / "peer.json").write_text(json.dumps(facts), encoding="utf-8")


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    shards = sorted(folder.glob("*.safetensors"))
    return {name: tensor for shard in shards for name, tensor in load_file(shard).items()}


def _levels(weight: torch.Tensor, group: int) -> int:
    """The most distinct values that one group of a row has."""
    ordered = weight.reshape(-1, group).sort(dim=1).values
    return int((ordered.diff(dim=1) != 0).sum(dim=1).max()) + 1
