"""A real model that is small enough for end-to-end tests: the demo's first blocks."""

import json
import shutil
from pathlib import Path

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
