"""A real model that is small enough for end-to-end tests: the demo's first blocks."""

import json
import shutil
from pathlib import Path
from typing import Any

from whet.recipe.progress import Silence
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.writer import write_shard

FEW = ("calibration.samples=4", "calibration.length=32")  # settings that make a run short


def small_model(path: Path, layers: int = 2) -> Path:
    """Write the demo model with its first `layers` blocks alone."""
    path.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(demo() / name, path / name)
    config = json.loads((demo() / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    source = Checkpoint(Folder(demo()))
    write_shard(
        path / "model.safetensors",
        {name: source.tensor(name) for name in source.names() if _kept(name, layers)},
    )
    return path


def _kept(name: str, layers: int) -> bool:
    parts = name.split(".")
    return "layers" not in parts or int(parts[parts.index("layers") + 1]) < layers


class _Stop(Silence):
    """Asks a run to stop, where it asks for the `part`-th time, its text being read."""

    def __init__(self, part: int) -> None:
        self.left, self.reads = part, False

    def start(self, total: int, what: str, within: float | None = None) -> None:
        self.reads = what == "read text"

    def finish(self) -> None:
        self.reads = False

    def stopped(self) -> bool:
        self.left -= not self.reads
        return not self.reads and self.left == -1


def stop_at(part: int) -> dict[str, Any]:
    """Return arguments with which a run is stopped before a part of its work."""
    stop = _Stop(part)
    return {"progress": stop, "stopped": stop.stopped}
