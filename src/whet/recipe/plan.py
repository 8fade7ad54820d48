"""Everything that can be known before work starts: who is compressed how, what it will weigh, what is wrong.

`plan` raises all errors that do not need the weights' values: unknown families, tensors that do not
fit the configuration, steps that match nothing, formats that cannot be stored. It plans one stage,
of passes over linears and blocks; `pipeline` plans all stages of a recipe.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from whet.base.errors import FolderError, RecipeError
from whet.base.record import Record
from whet.formats.activation import Activation
from whet.formats.spec import WIDTH, Coded, Float, Format, Sparse, parse, smaller_group
from whet.kernels.arithmetic import usual
from whet.model.family import find
from whet.model.site import Site
from whet.passes.block_pass import BlockPass
from whet.passes.linear_pass import ByOutliers, LinearPass
from whet.recipe.anatomy import FOREIGN, Anatomy, anatomy
from whet.recipe.recipe import Precision, Recipe, Step, matches
from whet.store.dialects import WHET, Choice, choose
from whet.store.folder import Folder
from whet.store.scheme import Place, Scheme

ENDS = frozenset({"embed", "head"})  # words for what lies outside the blocks


@dataclass(frozen=True, slots=True)
class Placed:
    """A site and what is to be done to it: the steps that select it, in order, with fitted formats."""

    site: Site
    steps: tuple[int, ...]
    scheme: Scheme | None  # None: stays as it is
    note: str = ""  # what was changed for this site, or why it is left alone


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe bound to a model."""

    recipe: Recipe
    folder: Folder
    anatomy: Anatomy
    placed: tuple[Placed, ...]
    skipped: Mapping[str, str]  # module -> reason
    choice: Choice  # the dialect that the result is written in, and why
    passes: Mapping[tuple[int, str], LinearPass] = field(repr=False)  # (step, module) -> fitted

    def of_layer(self, layer: int | None) -> tuple[Placed, ...]:
        """Return the sites of one block, or (None) those outside the blocks."""
        return tuple(p for p in self.placed if p.site.layer == layer)

    @property
    def schemes(self) -> dict[str, Scheme]:
        """Return the scheme of each compressed module."""
        return {p.site.module: p.scheme for p in self.placed if p.scheme is not None}

    @property
    def steps(self) -> dict[str, tuple[int, ...]]:
        """Return, for each module, the steps that select it."""
        return {p.site.module: p.steps for p in self.placed}

    @property
    def needs_statistics(self) -> bool:
        """Return whether any step looks at activations."""
        return any(step.needs or _follows(step) or _walks(step) for step in self.recipe.steps)

    @property
    def compares(self) -> bool:
        """Return whether any step compares with what the original model sees."""
        paired = any(kind.pairs for step in self.recipe.steps for kind in step.needs)
        return paired or any(_follows(step) for step in self.recipe.steps)

    @property
    def source_bytes(self) -> int:
        """Size of the source's tensors [byte]."""
        return sum(stored.info.nbytes for stored in self.folder.tensors.values())

    @property
    def weights_bytes(self) -> int:
        """Exact size of the result's tensors [byte]."""
        kept = sum(self.folder.tensors[name].info.nbytes for name in self.copied)
        made = (p for p in self.placed if p.site.tensor in self.rewritten)
        return kept + sum(self._nbytes(p) for p in made)

    def settled(self, records: Iterable[Record]) -> "Plan":
        """Return the plan with the formats that were written, where a method needed less.

        Law: no larger than planned.
        """
        found = {r.site: parse(r.notes["format"]) for r in records if "format" in r.notes}

        def one(placed: Placed) -> Placed:
            format_ = found.get(placed.site.module)
            if placed.scheme is None or format_ is None:
                return placed
            return replace(placed, scheme=replace(placed.scheme, format=format_))

        return replace(self, placed=tuple(map(one, self.placed)))

    @property
    def config(self) -> dict[str, Any]:
        """Return the config.json of the result."""
        config = dict(self.folder.config)
        config.pop("quantization_config", None)
        embedding = next((site for site in self.anatomy.sites if site.role == "embed"), None)
        plain = {*self.skipped, *self.anatomy.account.copied_modules}
        if quantization := self.choice.config(self.schemes, plain, embedding):
            config["quantization_config"] = quantization
        return config

    @property
    def rewritten(self) -> frozenset[str]:
        """Return the source's tensors that the result holds in another form or under other names."""
        return frozenset(p.site.tensor for p in self.placed if p.scheme is not None or p.site.stack)

    @property
    def copied(self) -> frozenset[str]:
        """Return the source's tensors that keep their form; blocks may still rescale norms."""
        return self.anatomy.tensors - self.rewritten

    @property
    def renamed(self) -> dict[str, str]:
        """Return the tensors that keep their values under another name: routers of stacked experts."""
        if self.anatomy.family == FOREIGN:
            return {}
        family = find(self.folder.config)
        arch = family.architecture(self.folder.config, self.folder.tensors)
        layers = arch.experts.layers if arch.experts and arch.stacked else ()
        pairs = {family.router_tensor(arch, i): f"{family.router(arch, i)}.weight" for i in layers}
        return {old: new for old, new in pairs.items() if old != new}

    def _nbytes(self, placed: Placed) -> int:
        if placed.scheme is not None:
            return self.choice.dialect.nbytes(placed.site, placed.scheme)
        width = WIDTH[self.folder.tensors[placed.site.tensor].info.dtype]
        return placed.site.shape[0] * placed.site.shape[1] * width


def allocates(step: Step) -> bool:
    """Return whether the shares of a step's matrices follow from the whole model."""
    return isinstance(step.use, LinearPass) and step.use.shares is not None


def _walks(step: Step) -> bool:
    """Return whether shares follow from what text does in the whole model."""
    return isinstance(step.use, LinearPass) and isinstance(step.use.shares, ByOutliers)


def _follows(step: Step) -> bool:
    """Return whether a step reads samples on both sides of a block."""
    return isinstance(step.use, BlockPass) and step.use.follows


def plan(recipe: Recipe, folder: Folder, before: int = 0) -> Plan:
    """Bind steps over linears and blocks to a model folder; `before` counts the steps before them."""
    refuse_compressed(folder)
    found = anatomy(folder)
    _check_steps(recipe, found, before)
    bound = [_placed(recipe, site, before) for site in found.sites]
    choice = _choice(folder, found, {p.site: p.scheme for p in bound if p.scheme is not None})
    passes = {
        (index, p.site.module): use.fitted(p.site)
        for p in bound
        for index in p.steps
        if isinstance(use := recipe.steps[index].use, LinearPass)
    }
    skipped = dict(found.skipped) | {p.site.module: p.note for p in bound if p.scheme is None}
    recipe = replace(recipe, precision=settled(recipe, found))
    return Plan(recipe, folder, found, tuple(bound), skipped, choice, passes)


def settled(recipe: Recipe, model: Anatomy) -> Precision:
    """Settle `auto`: narrow models are quick anyway, and feel rounding more."""
    if recipe.precision != "auto":
        return recipe.precision
    return usual(model.hidden)


def _choice(folder: Folder, model: Anatomy, schemes: Mapping[Place, Scheme]) -> Choice:
    """Choose the dialect; T5's own code reads `wo.weight`, which only whet's modules still have."""
    choice = choose(schemes, [site for site in model.sites if site not in schemes])
    if model.family == FOREIGN and folder.config.get("is_encoder_decoder"):
        return replace(
            choice, dialect=WHET, reason="the code of encoder-decoders reads the weights"
        )
    return choice


def refuse_compressed(folder: Folder) -> None:
    """Raise if a folder is seen as codes: sources are opened with `dense`, which decodes them."""
    quantization = folder.config.get("quantization_config")
    if quantization:
        known = isinstance(quantization, dict) and quantization.get("quant_method")
        raise FolderError(
            f"{folder.path} is compressed already (quant_method {known or 'unknown'})",
            "Compress the original model: errors of two compressions add up.",
        )


def _check_steps(recipe: Recipe, model: Anatomy, before: int) -> None:
    for pattern in recipe.skip:
        _check_pattern(f"recipe {recipe.name}: skip", pattern, model)
    for number, step in enumerate(recipe.steps, before + 1):
        where = f"recipe {recipe.name}, step {number} ({step.use.name})"
        if isinstance(step.use, BlockPass) and model.family == FOREIGN:
            raise RecipeError(
                f"{where} works on the blocks of known families, and this model runs by the code "
                "of transformers",
                "Use rtn, hqq or gptq.",
            )
        if model.family == FOREIGN and allocates(step):
            raise RecipeError(
                f"{where} allots shares by layer, and this model runs by the code of transformers",
                "Leave allocation uniform.",
            )
        for pattern in step.where:
            _check_pattern(f"{where}: where", pattern, model)
        _check_selected(where, step, [s for s in model.sites if not recipe.skips(s)], model)


def _check_selected(where: str, step: Step, left: Sequence[Site], model: Anatomy) -> None:
    """Refuse a step that selects nothing, or a site that it cannot rewrite.

    A step for embedding and head alone may find neither: a model may lack them, or keep them. A head
    that is tied to an embedding follows it.
    """
    found = [site for site in left if step.selects(site)]
    if not found and not (step.where and set(step.where) <= ENDS):
        raise RecipeError(f"{where} selects no site that is not skipped", _sites(model))
    roles = {site.role for site in found}
    for site in found:
        if site.tied not in roles:
            _check_site(where, step, site)


def _check_pattern(where: str, pattern: str, model: Anatomy) -> None:
    """Refuse a pattern that names nothing of the model: it would do nothing, unnoticed."""
    left = any(fnmatchcase(module, pattern) for module in model.skipped)
    if pattern not in ENDS and not left and not any(matches(pattern, site) for site in model.sites):
        raise RecipeError(f"{where} = {pattern!r} matches no site", _sites(model, pattern))


def _sites(model: Anatomy, near: str = "") -> str:
    """Return the name nearest to a pattern, or some of the names that there are."""
    roles = sorted({s.role for s in model.sites if ".experts." not in s.role})
    if close := get_close_matches(near, [*roles, "blocks"], 1):
        return f"Did you mean {close[0]!r}?"
    return f"Sites: {', '.join(roles[:12])}; or blocks, embed, head."


def _check_site(where: str, step: Step, site: Site) -> None:
    if site.tied is not None:
        raise RecipeError(
            f"{where}: {site.role} shares its storage with {site.tied}",
            f"Select {site.tied!r} instead: both then use the compressed matrix.",
        )
    if site.layer is None and isinstance(step.use, BlockPass) and step.use.everywhere is None:
        raise RecipeError(
            f"{where} works on blocks, and {site.role} is in none",
            "Select blocks, or parts of them.",
        )
    if site.tap == "tokens" and step.needs:
        raise RecipeError(
            f"{where} needs activations, and the embedding reads tokens", "Use rtn or hqq for it."
        )
    if isinstance(step.use, LinearPass) and (
        why := step.use.refuses(site) or step.use.fitted(site).format.refuses(site.shape)
    ):
        raise RecipeError(
            f"{where} cannot rewrite {site.module}: {why}",
            "Use another method there, or another format.",
        )


def _placed(recipe: Recipe, site: Site, before: int) -> Placed:
    if pattern := recipe.skips(site):
        return Placed(site, (), None, f"the recipe skips {pattern!r}")
    steps = tuple(i for i, step in enumerate(recipe.steps) if step.selects(site))
    if site.tied is not None:
        return Placed(site, (), None, f"tied to {site.tied}")
    if not steps:
        return Placed(site, (), None, "no step selects it")
    _refuse_twice(recipe, steps, site, before)
    format_, note = None, ""
    activation: Activation | None = None
    for index in steps:
        use = recipe.steps[index].use
        if isinstance(use, LinearPass):
            format_ = use.fitted(site).format
            note = _note(use.format, format_, site)
        activation = getattr(use, "activation", activation)
    scheme = (
        None if format_ is None and activation is None else Scheme(format_ or Float(), activation)
    )
    return Placed(site, steps, scheme, note if scheme else "only equalised")


def _refuse_twice(recipe: Recipe, steps: tuple[int, ...], site: Site, before: int) -> None:
    """Refuse two steps that round a site, but for one that prunes and one that rounds what it left."""
    linear = [
        (i + before + 1, use) for i in steps if isinstance(use := recipe.steps[i].use, LinearPass)
    ]
    if len(linear) == 2 and _keeps_zeros(linear[0][1], linear[1][1]):
        return
    if len(linear) > 1:
        raise RecipeError(
            f"steps {linear[0][0]} and {linear[1][0]} would both round {site.module}",
            "Let their `where` name different sites; or prune first, as plain numbers, and round "
            "in the same pattern, e.g. 2:4(bf16) and then 2:4(int4-g64).",
        )
    for number, use in linear:
        if isinstance(use.format, Sparse) and not use.prunes:
            raise RecipeError(
                f"step {number} ({use.name}) keeps the zeros of {use.format} on {site.module}, and "
                "no step before it has made any",
                f"Put a step that prunes before it, as {use.format.pattern}(bf16), or let alps or "
                "sparsegpt prune and round at once.",
            )


def _keeps_zeros(first: LinearPass, second: LinearPass) -> bool:
    """Return whether a step rounds what another has pruned to plain numbers, in the same pattern."""
    one, two = first.format, second.format
    if not (isinstance(one, Sparse) and isinstance(two, Sparse)):
        return False
    alike = isinstance(one.inner, Float) and one.pattern == two.pattern
    return alike and first.prunes and not second.prunes


def _note(asked: Format, got: Format, site: Site) -> str:
    """Return what the report says of a group that does not divide the inputs."""
    inputs = site.shape[1]
    if asked != smaller_group(asked, inputs):
        return f"{inputs} inputs do not divide by the group of {asked}: stored as {got}"
    inner = asked.inner if isinstance(asked, Sparse) else asked
    group = inner.grouping if isinstance(inner, Coded) else None
    if isinstance(group, int) and inputs % group:
        return (
            f"{inputs} inputs do not divide by the group of {asked}: the last has {inputs % group}"
        )
    return ""
