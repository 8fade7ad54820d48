"""A smaller model of the same family, fresh or cut from the one at hand; `distill` then teaches it.

Layers are taken evenly from the source, the first and the last among them (DistilBERT,
arXiv:1910.01108, §3; Minitron, arXiv:2407.14679); channels of the MLP by the product of the norms
of what writes and reads them. Fresh weights are those of GPT-2 (Radford, Wu, Child, Luan, Amodei,
Sutskever, 2019): normal, those that write into the residual stream smaller by √(2 · layers).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.errors import WhetError
from whet.base.quantity import Quantity
from whet.base.seed import stream_seed
from whet.formats.dense import DTYPES
from whet.formats.spec import Float as Plain
from whet.model.architecture import Architecture
from whet.model.family import Family, find
from whet.model.site import Site
from whet.model.source import Source
from whet.passes.linear_pass import says
from whet.passes.model_pass import Config, ModelPass, Outcome, Task

KEYS = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "ffn": ("intermediate_size", "n_inner", "ffn_dim"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
}
WIDTHS = ("hidden", "heads", "kv_heads")  # what only a fresh student may have otherwise
AXES = {"ffn": 1, "ffn+ffn": 2}  # axes that the channels of the MLP lie on, and how often


@dataclass(frozen=True, slots=True, kw_only=True)
class Student(ModelPass):
    """Make a smaller model of the same family; distil into it afterwards."""

    name: ClassVar[str] = "student"
    layers: int = field(default=0, metadata=says("blocks; 0 for as many as there are [1]"))
    ffn: int = field(default=0, metadata=says("channels of the MLP; 0 for as they are [1]"))
    hidden: int = field(default=0, metadata=says("channels of the stream; 0 for as they are [1]"))
    heads: int = field(default=0, metadata=says("query heads; 0 for as many as there are [1]"))
    kv_heads: int = field(default=0, metadata=says("key-value heads; 0 for as they are [1]"))
    weights: Literal["source", "fresh"] = field(
        default="source", metadata=says("where weights come from: source (cut) or fresh")
    )

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        for name in KEYS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in WIDTHS:
            if self.weights == "source" and getattr(self, name):
                raise ValueError(f"{name} can be changed with weights=fresh alone")

    def refuses(self, config: Config) -> str | None:
        """Return why there is no such student of this model."""
        for name, keys in KEYS.items():
            if getattr(self, name) and not any(key in config for key in keys):
                return f"config.json does not say {' or '.join(keys)}"
        try:
            old, new = (find(config).architecture(c) for c in (config, self.config(config)))
        except WhetError as error:
            return error.message
        if self.weights == "source":
            if new.layers > old.layers or new.ffn > old.ffn:
                return "a student cut from a model is no larger than that"
            if old.ffns and self.ffn:
                return "its feed-forward layers differ in width already; use ffn"
            if old.experts is not None and self.ffn:
                return "the channels of experts are not cut; set layers alone"
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the student."""
        made: dict[str, Any] = dict(config)
        for name, keys in KEYS.items():
            if value := getattr(self, name):
                made |= {next(key for key in keys if key in config): value}
        if self.hidden and "word_embed_proj_dim" in config:  # OPT's name for the same width
            made |= {"word_embed_proj_dim": self.hidden}
        if self.layers:
            count = next(config[key] for key in KEYS["layers"] if key in config)
            chosen = taken(count, self.layers).tolist()
            lists = {k: v for k, v in config.items() if isinstance(v, list) and len(v) == count}
            made |= {k: [v[i] for i in chosen] for k, v in lists.items()}
        return made

    def run(self, task: Task) -> Outcome:
        """Return the student's tensors."""
        family, names = find(task.source.config), task.source.names()
        old = family.architecture(task.source.config, names)
        new = family.architecture(self.config(task.source.config), names)
        if self.weights == "fresh":
            tensors = fresh(family, new, task, _dtype(task.source, family, old))
        else:
            tensors = cut(family, old, new, task.source)
        sizes = (sum(map(_numel, family.tensors(arch).values())) for arch in (new, old))
        share = next(sizes) / next(sizes)
        facts = {"": {"size": Quantity(share, "1", "numbers of the student ÷ of the source")}}
        return Outcome(tensors, facts=facts)


def taken(count: int, kept: int) -> Int64[Tensor, "kept"]:
    """Return which of `count` layers are kept: evenly spread, with the first and the last.

    Law: ascending, none twice. A student of one layer takes the first.
    """
    return torch.linspace(0, count - 1, kept, dtype=torch.float64).round().long()


def fresh(
    family: Family, arch: Architecture, task: Task, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield random tensors of an architecture. Law: equal seeds give equal tensors."""
    size = float(task.source.config.get("initializer_range") or 0.02)
    last = {s.tensor for s in family.sites(arch) if s.layer is not None and s.out == "hidden"}
    for name, shape in family.tensors(arch).items():
        generator = torch.Generator().manual_seed(stream_seed(task.seed, f"student/{name}"))
        if len(shape) > 1:
            spread = size / (2 * arch.layers) ** 0.5 if name in last else size
            value = spread * torch.randn(shape, generator=generator)
        elif name.endswith(".bias"):
            value = torch.zeros(shape)
        else:
            value = torch.full(shape, 1.0 - arch.norm.offset)
        yield name, value.to(dtype)


def cut(
    family: Family, old: Architecture, new: Architecture, source: Source
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of blocks that are kept, with the channels that are kept."""
    for layer, before in enumerate(taken(old.layers, new.layers).tolist()):
        sites = list(
            zip(family.block_sites(new, layer), family.block_sites(old, before), strict=True)
        )
        kept = None if new.ffn == old.ffn else channels([s for _, s in sites], source, new.ffn)
        names = _names(family, new, layer)
        done: set[str] = set()
        for (name, _), (stored, site) in zip(names, _names(family, old, before), strict=True):
            if name not in done:
                value = source.tensor(stored)
                yield name, value if site is None else _narrowed(value, site, name, kept, old.ffn)
            done.add(name)


def channels(sites: list[Site], source: Source, count: int) -> Int64[Tensor, "kept"]:
    """Return the channels of an MLP whose weights are largest, ascending."""
    score = torch.ones(())
    for site in sites:
        weight = source.weight(site).dense()
        if site.out in AXES:
            score = score * weight.norm(dim=1).view(AXES[site.out], -1).prod(0)
        elif site.inp in AXES:
            score = score * weight.norm(dim=0)
    return score.topk(count).indices.sort().values


def _names(family: Family, arch: Architecture, layer: int) -> Iterator[tuple[str, Site | None]]:
    """Yield the tensors of a block, each with the linear that it belongs to."""
    for site in family.block_sites(arch, layer):
        yield site.tensor, site
        if site.bias:
            yield f"{site.module}.bias", site
    if arch.norm.affine:
        for module, _ in family.block_norms(arch, layer).values():
            yield f"{module}.weight", None
            if arch.norm.kind == "layer":
                yield f"{module}.bias", None
    if arch.sparse(layer):
        yield family.router_tensor(arch, layer), None


def _narrowed(value: Tensor, site: Site, name: str, kept: Tensor | None, ffn: int) -> Tensor:
    """Return a tensor of a linear with the channels that are kept."""
    if kept is None:
        return value
    if site.out in AXES:
        rows = torch.cat([kept + ffn * i for i in range(AXES[site.out])])
        along = 1 if site.transposed and value.dim() > 1 else 0
        return value.index_select(along, rows)
    if site.inp in AXES and not name.endswith(".bias"):
        return value.index_select(0 if site.transposed else 1, kept)
    return value


def _dtype(source: Source, family: Family, arch: Architecture) -> torch.dtype:
    stored = source.weight(family.embed_site(arch)).format
    return DTYPES[stored.dtype] if isinstance(stored, Plain) else torch.bfloat16


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
