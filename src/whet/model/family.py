"""Families of models: how a config and a checkpoint's names become an architecture and sites.

A family is a value in a file of its own in `families/`, found by being there. Needs no torch.
"""

import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from whet.base.errors import FolderError, UnsupportedError
from whet.formats.keeping import keeping_of
from whet.model.architecture import Architecture
from whet.model.config import FOREIGN, Config, checked, listed
from whet.model.roles import Place, linears, norms
from whet.model.site import Site, Stack
from whet.model.uneven import uneven

LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")
BASE_MODEL = "Model"  # how the names of transformers' classes without a head end


@dataclass(frozen=True, kw_only=True)
class Family:
    """Names and readings of one family.

    `modules`: the checkpoint's name of each role; `{p}` stands for the `prefix`, `{i}` for the block
    and `{e}` for the expert.
    `stacks`: the tensors that hold all experts of a block, where they are stored together, and the
    roles in each, laid end to end.
    `ignored`: ends of the names of tensors that files may hold and that nothing needs.
    """

    name: str
    model_types: tuple[str, ...]
    read: Callable[[Config], Architecture]
    modules: Mapping[str, str]
    prefix: str = "model."
    transposed: bool = False
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    stacked_router: str = ""
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)

    def architecture(self, config: Config, names: Collection[str] = ()) -> Architecture:
        """Read a config; the tensors' `names` settle the layout of experts."""
        self._check_embedding(names)
        arch = uneven(config, checked(self.read(config)))
        self._check_head(arch, names)
        arch = replace(arch, prefix=self.prefix, keeping=keeping_of(config))
        if arch.experts is None or not self.stacks:
            return arch
        first = next(iter(self.stacks)).format(p=arch.prefix, i=arch.experts.layers[0])
        return replace(arch, stacked=first in names)

    def sites(self, arch: Architecture) -> tuple[Site, ...]:
        """Return every linear weight in the order of the model: embedding, blocks, head."""
        blocks = (self.block_sites(arch, layer) for layer in range(arch.layers))
        return (
            self.embed_site(arch),
            *(s for block in blocks for s in block),
            self.head_site(arch),
        )

    def embed_site(self, arch: Architecture) -> Site:
        """Return the embedding: a row for each token."""
        shape = (arch.vocab, arch.hidden)
        name, head = self.module(arch, "embed"), self.module(arch, "head") if arch.tied else None
        return Site("embed", name, shape, "vocab", "hidden", "tokens", head=head)

    def head_site(self, arch: Architecture) -> Site:
        """Return the output weight."""
        shape, tied = (arch.vocab, arch.hidden), "embed" if arch.tied else None
        name = self.module(arch, "head")
        return Site("head", name, shape, "vocab", "hidden", "head.in", tied=tied)

    def block_sites(self, arch: Architecture, layer: int) -> tuple[Site, ...]:
        """Return the linear weights of a block in the order in which they run."""
        return tuple(self._site(arch, layer, place) for place in linears(arch, layer))

    def block_norms(self, arch: Architecture, layer: int) -> dict[str, tuple[str, int]]:
        """Return the module and the width [channel] of each norm of a block, by role."""
        return {role: (self.module(arch, role, layer), width) for role, width in norms(arch)}

    def router(self, arch: Architecture, layer: int) -> str | None:
        """Return the module that chooses experts, where a block has one.

        Like the experts' sites, it is called as in checkpoints that store experts apart.
        """
        return self.module(arch, "mlp.router", layer) if arch.sparse(layer) else None

    def router_tensor(self, arch: Architecture, layer: int) -> str:
        """Return the name under which the router of a block is stored."""
        template = self.stacked_router if arch.stacked else self.modules["mlp.router"]
        return template.format(p=arch.prefix, i=layer) + ".weight"

    def tensors(self, arch: Architecture) -> dict[str, tuple[int, ...]]:
        """Return every tensor that a checkpoint of plain numbers must hold, and its shape."""
        found: dict[str, tuple[int, ...]] = {}
        for site in self.sites(arch):
            found |= _stored(site, arch) if site.tied is None else {}
        for layer in range(arch.layers):
            for module, width in self.block_norms(arch, layer).values():
                found |= _norm_tensors(arch, module, width)
            if arch.experts and arch.sparse(layer):
                found[self.router_tensor(arch, layer)] = (arch.experts.count, arch.hidden)
        if arch.final_norm:
            found |= _norm_tensors(arch, self.module(arch, "norm"), arch.hidden)
        if arch.position_offset is not None:
            rows = arch.context + arch.position_offset
            found[f"{self.module(arch, 'positions')}.weight"] = (rows, arch.hidden)
        return found

    def blocks(self, arch: Architecture) -> str:
        """Return how the names of all tensors in blocks begin, before the block's number."""
        first = next(name for name in self.modules.values() if "{i}" in name)
        return first.partition("{i}")[0].format(p=arch.prefix)

    def is_inside(self, arch: Architecture, name: str) -> bool:
        """Return whether a tensor lies in the blocks, or in another module of the model."""
        if name.startswith(self.blocks(arch)):
            return True
        outside = (role for role, template in self.modules.items() if "{i}" not in template)
        return name.rpartition(".")[0] in {self.module(arch, role) for role in outside}

    def canonical(self, name: str) -> str:
        """Return the name that a tensor or module has in a file with a head.

        The prefix of the base model is added or taken away, as transformers does on loading
        (`rename_source_key` in `core_model_loading`), and `lm_head` is the head of every family.
        """
        base, tops = self._tops
        head = self.modules["head"]
        first, _, rest = name.partition(".")
        if first in tops:
            return f"{base}.{name}"
        top, _, inner = rest.partition(".")
        if first == base and (
            top == "lm_head" or (top == base and inner.partition(".")[0] in tops)
        ):
            name, first, rest = rest, top, inner
        return f"{head}.{rest}" if first == "lm_head" and rest else name

    @cached_property
    def _tops(self) -> tuple[str, frozenset[str]]:
        """Return the name of the base model in one with a head, and what lies directly in it."""
        inside = (t.format(p=self.prefix, i=0, e=0) for t in self.modules.values() if "{p}" in t)
        parts = [name.split(".") for name in inside]
        return parts[0][0], frozenset(part[1] for part in parts)

    def skipped(self, arch: Architecture) -> dict[str, str]:
        """Return the matrices that are never compressed, and why."""
        found: dict[str, str] = {}
        if arch.position_offset is not None:
            found[self.module(arch, "positions")] = (
                "learned positions are looked up, not multiplied"
            )
        for layer in range(arch.layers):
            if router := self.router(arch, layer):
                found[router] = "a router is small, and its errors send tokens to other experts"
        return found

    def module(self, arch: Architecture, role: str, layer: int | None = None) -> str:
        """Return the checkpoint's name of a role."""
        return self.modules[role].format(p=arch.prefix, i=layer)

    def _check_embedding(self, names: Collection[str]) -> None:
        wanted = self.modules["embed"].format(p=self.prefix)
        if names and not any(name.startswith(f"{wanted}.") for name in names):
            raise FolderError(
                f"the folder holds no tensor of {wanted!r}, which every {self.name} model has",
                "Are the weights those of another model than config.json says?",
            )

    def _check_head(self, arch: Architecture, names: Collection[str]) -> None:
        """Refuse a model without a head; transformers would give it a random one."""
        head = self.modules["head"]
        if names and not arch.tied and not any(name.startswith(f"{head}.") for name in names):
            raise FolderError(
                f"the folder has no tensor {head}.weight, and its config.json says that the head is "
                "not the embedding (tie_word_embeddings is false)",
                'Where the head is the embedding, say "tie_word_embeddings": true; for a model that '
                'has none, name its class, e.g. "architectures": ["LlamaModel"]; otherwise get the '
                "missing shard.",
            )

    def _site(self, arch: Architecture, layer: int, place: Place) -> Site:
        names = {"p": arch.prefix, "i": layer, "e": place.expert}
        return Site(
            place.role,
            self.modules[place.name].format(**names),
            place.shape,
            place.out,
            place.inp,
            place.tap,
            layer=layer,
            bias=place.role in arch.biases,
            transposed=self.transposed,
            stack=self._stack(arch, layer, place) if arch.stacked else None,
        )

    def _stack(self, arch: Architecture, layer: int, place: Place) -> Stack | None:
        for template, roles in self.stacks.items():
            if place.expert is not None and place.name in roles:
                rows = place.shape[0]
                start = roles.index(place.name) * rows
                tensor = template.format(p=arch.prefix, i=layer)
                return Stack(tensor, place.expert, start, start + rows)
        return None


def _stored(site: Site, arch: Architecture) -> dict[str, tuple[int, ...]]:
    rows, cols = site.shape
    if site.stack and arch.experts:
        whole = rows * (2 if site.role.endswith((".gate", ".up")) else 1)
        return {site.tensor: (arch.experts.count, whole, cols)}
    found: dict[str, tuple[int, ...]] = {
        site.tensor: (cols, rows) if site.transposed else (rows, cols)
    }
    return found | ({f"{site.module}.bias": (rows,)} if site.bias else {})


def _norm_tensors(arch: Architecture, module: str, width: int) -> dict[str, tuple[int, ...]]:
    if not arch.norm.affine:
        return {}
    names = ("weight", "bias") if arch.norm.kind == "layer" else ("weight",)
    return {f"{module}.{name}": (width,) for name in names}


@cache
def families() -> dict[str, Family]:
    """Return every family by name: those whose file is in `families/`."""
    package = importlib.import_module("whet.model.families")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [importlib.import_module(f"{package.__name__}.{name}").FAMILY for name in names]
    return {family.name: family for family in found}


def find(config: Config) -> Family:
    """Return the family of a config, by its `model_type`."""
    kind = config.get("model_type")
    found = next((f for f in families().values() if kind in f.model_types), None)
    if found is None or "text_config" in config:
        raise UnsupportedError(
            f"config.json has model_type = {kind!r}; known families: {', '.join(families())}",
            FOREIGN,
        )
    _check_classes(found, config)
    return found


def _check_classes(family: Family, config: Config) -> None:
    """Refuse a model whose class has no head for tokens: its folder must stay one of that class."""
    classes = listed(config, "architectures", str)
    if not classes or any(name.endswith(LANGUAGE_MODELS) for name in classes):
        return
    if all(name.endswith(BASE_MODEL) for name in classes):
        what = f"a model without a head ({family.modules['head']}.weight)"
    else:
        what = "a model for another task than predicting tokens"
    raise UnsupportedError(f"config.json has architectures = {list(classes)}: {what}", FOREIGN)
