"""Compare how whet reads the source with how transformers does, in a fresh process.

A folder that is read wrongly, a head that is not the model's or a bias that is left out would not be
found by comparing whet with whet. The first blocks of the source on a few tokens show it, and cost
little: as many blocks as fit in a bounded memory, all of them in a small model. What is found is kept
in the cache by the digests of the source, so that a model is looked at once.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from math import isfinite, nan, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.base.errors import QualityError, StorageError
from whet.base.machine import free_memory
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.subprocesses import failure_reason
from whet.model import decoder
from whet.model.family import find
from whet.model.fields import resized
from whet.model.opened import opened
from whet.recipe.anatomy import FOREIGN
from whet.recipe.pipeline import Pipeline
from whet.recipe.reload import LARGEST_ERROR, Reloaded, compared
from whet.store.checkpoint import Checkpoint
from whet.store.durable import write_json
from whet.store.folder import Folder, gguf_file
from whet.store.json_file import read_json
from whet.version import __version__

TOKENS = 32  # of the one window that is compared
BLOCKS_BYTES = 512 << 20  # of blocks in f32 that are held [byte]
LONGEST_S = 300.0  # then the comparison is given up
DEFECT = (
    "This is a fault in whet, or transformers reads the folder in another way: please report it."
)


def source_record(bound: Pipeline, cache: Path) -> Record:
    """Return how far whet's reading of the source is from transformers', or why none was compared.

    Raise `QualityError` where they differ.
    """
    if why := _skips(bound):
        return Record("reading", "", notes={"skipped": why})
    blocks = _blocks(bound)
    if not blocks:
        return Record("reading", "", notes={"skipped": "one block exceeds half of the free memory"})
    kept = cache / "readings" / f"{_key(bound.folder, blocks)}.json"
    found = read_json(kept) if kept.is_file() else _asked(bound.folder.path, blocks)
    if isfinite(found.get("error", nan)) and not kept.is_file():
        _keep(kept, found)
    return _record(bound, found, blocks)


def _keep(path: Path, found: Mapping[str, Any]) -> None:
    """Keep what was found, where there is a place for it; else it is looked for again."""
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(found))


def _record(bound: Pipeline, found: Mapping[str, Any], blocks: int) -> Record:
    if "skipped" in found:
        return Record("reading", "", notes={"skipped": str(found["skipped"])})
    if not isfinite(found["error"]):
        return Record("reading", "", notes={"skipped": "logits of the source are not finite"})
    result = Reloaded(found["error"], found["agreement"])
    if not result.error <= LARGEST_ERROR:
        raise QualityError(
            f"{bound.folder.path}: the logits of the source differ by {result.error:.2g} of their "
            f"spread from those of transformers (at most {LARGEST_ERROR:g})",
            DEFECT,
        )
    how = "max |Δ logit| / sd of the logits, transformers in f32"
    notes = {"blocks": f"1 to {blocks} of {bound.anatomy.layers}", "tokens": str(TOKENS)}
    return Record(
        "reading", "", {"max_relative_error": Quantity(result.error, "1", how)}, notes=notes
    )


def _skips(bound: Pipeline) -> str:
    """Return why a source is not compared; nothing where it is."""
    if bound.anatomy.family == FOREIGN:
        return "the model runs by the code of transformers"
    if gguf_file(bound.folder.path) is not None:
        return "transformers reads no GGUF file without further packages"
    config = read_json(bound.folder.path / "config.json")
    if config.get("quantization_config"):
        return "the source is quantized"
    if config.get("whet_ffn"):
        return "transformers alone has no feed-forward layers of different widths"
    return "" if _installed("transformers") else "transformers is not installed"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _blocks(bound: Pipeline) -> int:
    """Return how many of the first blocks are compared; 0 if not even one fits."""
    sizes = dict.fromkeys(range(bound.anatomy.layers), 0)
    for site in bound.anatomy.sites:
        if site.layer is not None:
            sizes[site.layer] += 4 * prod(site.shape)
    ends = sum(4 * prod(site.shape) for site in bound.anatomy.sites if site.layer is None)
    room, count, held = free_memory() // 2 - 2 * ends, 0, 0
    for size in sizes.values():
        held += size
        if 2 * held > room or (count and held > BLOCKS_BYTES):
            break
        count += 1
    return count


def _key(folder: Folder, blocks: int) -> str:
    """Return what tells one comparison from another: the source, the programs, the blocks."""
    said = [__version__, _installed("transformers"), str(blocks), *sorted(folder.digest().items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _asked(folder: Path, blocks: int) -> dict[str, Any]:
    """Compare in a fresh process."""
    command = [sys.executable, "-m", "whet.recipe.reading", str(folder), str(blocks)]
    command.append(str(torch.get_num_threads()))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"it took more than {LONGEST_S:g} s"}
    if done.returncode:
        return {"skipped": f"transformers failed: {failure_reason(done.returncode, done.stderr)}"}
    return json.loads(done.stdout.splitlines()[-1])


@torch.inference_mode()
def first_logits(folder: Folder, blocks: int, ids: Tensor) -> Tensor:
    """Return what the head makes of what leaves the first blocks, as whet reads a folder."""
    source = Checkpoint(folder)
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    hidden = decoder.embedding(source, family, arch)(ids)
    for layer in range(blocks):
        hidden = decoder.block(source, family, arch, layer)(hidden)
    return decoder.head(source, family, arch)(hidden)


def compare_reading(path: Path, blocks: int) -> Reloaded:
    """Compare the first blocks of a folder as whet and as transformers read it."""
    from whet.model.foreign import first_blocks

    folder = opened(path)
    family = find(folder.config)
    arch = family.architecture(folder.config, folder.tensors)
    count = min(TOKENS, arch.context)
    ids = torch.randint(arch.vocab, (1, count), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="whet-reading-") as place:
        config = read_json(path / "config.json")
        write_json(Path(place) / "config.json", _cut(config, family.name, blocks))
        theirs = first_blocks(path, Path(place), ids)
    return compared(theirs, first_logits(folder, blocks, ids))


def _cut(config: Mapping[str, Any], family: str, blocks: int) -> dict[str, Any]:
    """Return the config of the first blocks alone, which names no code."""
    found = {k: v for k, v in resized(config, family, layers=blocks).items() if k != "auto_map"}
    kinds = found.get("layer_types")
    return found | ({"layer_types": kinds[:blocks]} if kinds else {})


def _main(folder: str, blocks: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    found = compare_reading(Path(folder), int(blocks))
    print(json.dumps({"error": found.error, "agreement": found.agreement}))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
