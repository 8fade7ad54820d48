"""Folders of tiny models for the native executor, and the torch engine that it must equal."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from tests.graphs import Compressed, opened
from whet.model.decoder import Model
from whet.model.decoder import load as load_model
from whet.model.family import find
from whet.model.linear import Linear
from whet.model.source import InMemory
from whet.runtime.native import Native, Settings, load
from whet.store.checkpoint import Checkpoint
from whet.store.dialects.whet import WHET
from whet.store.folder import Folder
from whet.store.scheme import Scheme
from whet.store.writer import write_shard


def saved(path: Path, held: InMemory, schemes: Mapping[str, str]) -> Folder:
    """Write a model in whet's dialect: `schemes` by the end of a role (`tests.graphs.Compressed`)."""
    path.mkdir(parents=True)
    compressed = Compressed(held, schemes)
    family = find(held.config)
    arch = family.architecture(held.config, held.names())
    found: dict[str, Scheme] = {}
    tensors = {name: tensor.clone() for name, tensor in held.tensors.items()}
    for site in family.sites(arch):
        if site.tied is not None:
            continue
        activation, scale = compressed.activation(site) or (None, None)
        weight = compressed.weight(site)
        scheme = found[site.module] = Scheme(weight.format, activation)
        if not scheme.is_plain:
            tensors.pop(site.tensor, None)
            tensors |= WHET.tensors(site, weight, scheme, scale)
    if arch.tied:
        tensors.pop("lm_head.weight", None)
    quantized = {"quantization_config": WHET.config(found, ())}
    config = {k: v for k, v in held.config.items() if k != "quantization_config"}
    (path / "config.json").write_text(json.dumps(config | quantized))
    write_shard(path / "model.safetensors", {k: v.contiguous() for k, v in tensors.items()})
    return Folder(path)


def tiny(path: Path, case: str, schemes: Mapping[str, str] | None = None) -> Folder:
    """Write a tiny model of a family; without schemes in float32."""
    return saved(path, opened(case), schemes or {"": "f32"})


def native(folder: Folder, **settings) -> Native:
    """Return a folder in memory, with limits so small that steps are cut."""
    chosen = {"threads": 2, "tokens": 16, "sequences": 4, **settings}
    return load(folder, Settings(**chosen))


def rounding(folder: Folder) -> Model:
    """Return the torch engine with the inputs of its linears rounded to bf16, as kernels do."""

    def rounded(_: Linear, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].bfloat16().float(), *inputs[1:])

    model = load_model(Checkpoint(folder))
    for module in model.modules():
        if isinstance(module, Linear) and module.activation is None:
            module.register_forward_pre_hook(rounded)
    return model
