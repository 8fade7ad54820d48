"""Folders written by rounding every linear of a model's blocks to nearest."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from whet.formats.activation import Activation
from whet.formats.spec import parse
from whet.formats.weight import written
from whet.model.family import find
from whet.model.site import Site
from whet.store.checkpoint import Checkpoint
from whet.store.dialects import Choice, choose
from whet.store.durable import write_json
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.scheme import Scheme
from whet.store.side_files import copy_side_files
from whet.store.writer import Shards

Chosen = Callable[[Site], Scheme | None]


def shortened(into: Path, layers: int = 2) -> Path:
    """The demo with its first blocks alone: a real model, and a quick one."""
    folder = Folder(demo())
    into.mkdir()
    copy_side_files(folder, into)
    write_json(into / "config.json", dict(folder.config) | {"num_hidden_layers": layers})
    shards = Shards(into)
    for name in folder.tensors:
        found = re.match(r"model\.layers\.(\d+)\.", name)
        if found is None or int(found[1]) < layers:
            shards.copy(folder.shard_of(name), name)
    shards.finish()
    return into


def blocks(format_: str, activation: Activation | None = None) -> Chosen:
    """The linears of the blocks in one format."""
    scheme = Scheme(parse(format_), activation)
    return lambda site: scheme if site.layer is not None else None


def round_to_nearest(
    source: Path,
    into: Path,
    chosen: Chosen,
    input_scales: Mapping[str, float] | None = None,
    max_bytes: int = 10**9,
) -> Choice:
    """Write `source` with every chosen site rounded to nearest."""
    folder = Folder(source)
    checkpoint = Checkpoint(folder)
    family = find(folder.config)
    architecture = family.architecture(folder.config, folder.tensors)
    sites = [s for s in family.sites(architecture) if s.tied is None]
    schemes = {site: scheme for site in sites if (scheme := chosen(site)) is not None}
    choice = choose(schemes)
    into.mkdir()
    copy_side_files(folder, into)
    shards, replaced = Shards(into, max_bytes), {site.tensor for site in schemes}
    for site, scheme in schemes.items():
        weight = written(checkpoint.weight(site).dense(), scheme.format)
        static = scheme.activation is not None and scheme.activation.static
        scale = (input_scales or {})[site.module] if static else None
        for name, tensor in choice.dialect.tensors(site, weight, scheme, scale).items():
            shards.put(name, tensor)
    for name in checkpoint.names():
        if name not in replaced:
            shards.copy(folder.shard_of(name), name)
    shards.finish()
    skipped = {s.module for s in family.sites(architecture)} - {s.module for s in schemes}
    skipped |= set(family.skipped(architecture))
    config = {k: v for k, v in folder.config.items() if k != "quantization_config"}
    by_module = {site.module: scheme for site, scheme in schemes.items()}
    quantization = choice.config(by_module, skipped, family.embed_site(architecture))
    write_json(into / "config.json", config | {"quantization_config": quantization})
    return choice


def whet_logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """The logits as whet computes them from the folder."""
    from whet.model.decoder import load

    with torch.inference_mode():
        return load(Checkpoint(Folder(folder)))(tokens)


def tokens_of(folder: Path, batch: int = 2, time: int = 24) -> torch.Tensor:
    """A few token ids of a folder's vocabulary."""
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    return torch.randint(vocab, (batch, time), generator=torch.Generator().manual_seed(0))
