"""Mixed precision: which format each linear gets, so that the model has the size that a recipe states.

A recipe with an `allocation` becomes an ordinary one, whose steps name every linear. The size of the
result is known before; which linears get more bits follows from their sensitivities. Linears that
read the same activation (queries, keys and values; gate and up) get the same format: runtimes join
them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from whet.base.errors import RecipeError, StoppedError
from whet.calibrate.backward import BackwardPass
from whet.calibrate.hidden_states import MemoryBudget
from whet.calibrate.sensitivity import Sensitivity, block_sensitivities
from whet.calibrate.sensitivity_outside import outside_sensitivities
from whet.formats.spec import Format
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass
from whet.passes.model_pass import ModelPass
from whet.recipe.knapsack import Item, choose
from whet.recipe.plan import Plan, plan
from whet.recipe.recipe import Allocation, Recipe, Step
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.scheme import Scheme

Losses = Mapping[tuple[int | None, str], Mapping[Format, float]]  # (layer, role) -> KL by format


@dataclass(frozen=True, slots=True)
class Group:
    """Linears that get the same format, the formats to choose from, and the step that rounds them."""

    step: int
    sites: tuple[Site, ...]
    formats: tuple[Format, ...]

    def nbytes(self, bound: Plan, format_: Format) -> int:
        """Return the exact size in a format [byte]."""
        use = bound.recipe.steps[self.step].use
        assert isinstance(use, LinearPass)
        cast = replace(use, format=format_)  # type: ignore[type-var]
        dialect = bound.choice.dialect
        return sum(dialect.nbytes(s, Scheme(cast.fitted(s).format)) for s in self.sites)

    def loss(self, losses: Losses, format_: Format) -> float:
        """Return the KL divergence that the format causes [nat per token]."""
        return sum(losses[s.layer, s.role][format_] for s in self.sites)


def groups_of(bound: Plan, asked: Allocation) -> tuple[Group, ...]:
    """Return the groups of linears that steps round. Law: each is in one group.

    The embedding and the head are among them where they have formats to choose from.
    """
    found: dict[tuple[int, int | None, str], list[Site]] = defaultdict(list)
    for placed in bound.placed:
        site = placed.site
        if placed.scheme is not None and asked.formats_of(site):
            index = next(i for i in placed.steps if _rounds(bound.recipe.steps[i]))
            found[index, site.layer, _general(site.tap)].append(site)
    return tuple(
        Group(step, tuple(sites), asked.formats_of(sites[0]))
        for (step, _, _), sites in found.items()
    )


def without_sensitivities(recipe: Recipe, folder: Folder) -> Recipe:
    """Return an ordinary recipe of the size that the result will have, as if all weights were alike."""
    asked = recipe.allocation
    if asked is None:
        return recipe
    bound = _bound(recipe, folder)
    alike = {
        (site.layer, site.role): {
            f: site.shape[0] * site.shape[1] * 4.0 ** -_bits(f, site) for f in group.formats
        }
        for group in groups_of(bound, asked)
        for site in group.sites
    }
    return _expanded(bound, asked, alike)


def allocated(
    recipe: Recipe,
    source: Checkpoint,
    ids: Tensor,
    work: Path,
    report: Callable[[float, str], None],
    stopped: Callable[[], bool],
    budget: MemoryBudget,
) -> Recipe:
    """Return an ordinary recipe with the formats that the linears' sensitivities call for."""
    asked = recipe.allocation
    assert asked is not None, "only recipes with an allocation are allocated"
    bound = _bound(recipe, source.folder)
    if not groups_of(bound, asked):
        return replace(recipe, allocation=None)

    def heed(done: float, what: str) -> None:
        report(done, what)
        if stopped():
            raise StoppedError(f"stopped at {what}", "Run the same command to go on.")

    some = ids[: asked.samples, : asked.length].contiguous()
    walk = BackwardPass(source, some, work, recipe.seed, heed, budget)
    losses = {(s.layer, s.role): s.kl for s in _sensitivities(walk, asked)}
    walk.delete()
    return _expanded(bound, asked, losses)


def _sensitivities(walk: BackwardPass, asked: Allocation) -> Iterator[Sensitivity]:
    for found in walk.blocks():
        yield from block_sensitivities(found, asked.formats, walk.ids.numel())
    if asked.tables:
        yield from outside_sensitivities(
            walk.source, walk.ids, walk.entering(), walk.leaving(), asked.tables
        )


def _bound(recipe: Recipe, folder: Folder) -> Plan:
    if any(isinstance(step.use, ModelPass) for step in recipe.steps):
        raise RecipeError(
            f"recipe {recipe.name}: allocation is for recipes without steps over the whole model",
            "Name the format of each step instead, or compress the result of one recipe by another.",
        )
    return plan(replace(recipe, allocation=None), folder)


def _expanded(bound: Plan, asked: Allocation, losses: Losses) -> Recipe:
    """Return the recipe with a step for each format that is chosen."""
    groups = groups_of(bound, asked)
    items = [
        Item(
            tuple(group.nbytes(bound, f) for f in group.formats),
            tuple(group.loss(losses, f) for f in group.formats),
        )
        for group in groups
    ]
    chosen = choose(items, _budget(bound, groups, asked))
    if chosen is None:
        least = sum(min(item.sizes) for item in items) + _fixed(bound, groups)
        raise RecipeError(
            f"recipe {bound.recipe.name}: allocation.bits is {asked.bits:g}, and the smallest of its "
            f"formats need {8 * least / _weights(bound):.3f} [bit per weight]",
            "Ask for more bits, or allow smaller formats in allocation.formats.",
        )
    picked = {g: g.formats[number] for g, number in zip(groups, chosen, strict=True)}
    steps = [
        one
        for index, step in enumerate(bound.recipe.steps)
        for one in _split(step, {g: f for g, f in picked.items() if g.step == index}, bound)
    ]
    return replace(bound.recipe, steps=tuple(steps), allocation=None)


def _split(step: Step, picked: Mapping[Group, Format], bound: Plan) -> Iterator[Step]:
    """Yield a step for each format, and one for what lies outside the blocks."""
    if not picked:
        yield step
        return
    where: dict[Format, list[str]] = defaultdict(list)
    for group, format_ in picked.items():
        where[format_] += [_pattern(s) for s in group.sites]
    for format_, names in sorted(where.items(), key=lambda pair: str(pair[0])):
        use = replace(step.use, format=format_)  # type: ignore[type-var]
        yield Step(use, tuple(dict.fromkeys(names)))
    inside = {site.module for group in picked for site in group.sites}
    outside = [
        p.site.role
        for p in bound.placed
        if _stands_alone(p.site) and p.site.module not in inside and step.selects(p.site)
    ]
    if outside:
        yield Step(step.use, tuple(outside))


def _budget(bound: Plan, groups: Sequence[Group], asked: Allocation) -> int:
    """Return what the groups may take [byte]."""
    return int(asked.bits * _weights(bound) / 8) - _fixed(bound, groups)


def _weights(bound: Plan) -> int:
    """Return the number of weights that the recipe rounds."""
    return sum(p.site.shape[0] * p.site.shape[1] for p in bound.placed if p.scheme is not None)


def _fixed(bound: Plan, groups: Sequence[Group]) -> int:
    """Return the size of what the recipe rounds outside the groups [byte]."""
    inside = {site.module for group in groups for site in group.sites}
    rest = ((p.site, p.scheme) for p in bound.placed if p.site.module not in inside)
    return sum(bound.choice.dialect.nbytes(site, scheme) for site, scheme in rest if scheme)


def _pattern(site: Site) -> str:
    """Return the pattern that selects a site of a block, or one outside."""
    return site.role if site.layer is None else f"layers.{site.layer}.{_general(site.role)}"


def _stands_alone(site: Site) -> bool:
    """Return whether a site lies outside the blocks and has storage of its own."""
    return site.layer is None and site.tied is None


def _rounds(step: Step) -> bool:
    return isinstance(step.use, LinearPass)


def _bits(format_: Format, site: Site) -> float:
    return format_.bits(site.shape) / (site.shape[0] * site.shape[1])


def _general(name: str) -> str:
    """Return a role or tap with a star for the number of an expert."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
