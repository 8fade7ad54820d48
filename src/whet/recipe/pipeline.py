"""A whole recipe bound to a model: its stages, each planned on the shape that those before it leave.

Consecutive passes over linears and blocks are one stage, which streams; a pass over the whole model
is a stage of its own. Everything knowable is settled here, before any work.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from whet.base.errors import RecipeError, UnsupportedError, WhetError
from whet.formats.spec import Float
from whet.model.account import Account, alone
from whet.model.family import find
from whet.model.site import Site
from whet.passes.model_pass import ModelPass
from whet.recipe.allocation import without_sensitivities
from whet.recipe.anatomy import FOREIGN, Anatomy, anatomy
from whet.recipe.plan import Placed, Plan, plan, refuse_compressed, settled
from whet.recipe.recipe import Recipe, Step
from whet.store.contents import FLOATS
from whet.store.dialects import Choice, choose
from whet.store.dialects.dialect import Layout, plain_layout
from whet.store.folder import Folder
from whet.store.outline import Outline


@dataclass(frozen=True, slots=True)
class Whole:
    """A pass over the whole model, bound to what the stages before leave; `number` is its step's."""

    number: int
    use: ModelPass
    folder: Folder  # what it reads, or will read
    result: Outline

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the config.json of the result."""
        return self.result.config

    @property
    def copied(self) -> frozenset[str]:
        """Return the tensors that are copied if the pass does not give them."""
        return frozenset(self.result.tensors)

    @property
    def renamed(self) -> Mapping[str, str]:
        """Return the tensors that are copied under another name: none."""
        return {}

    @property
    def weights_bytes(self) -> int:
        """Exact size of the result's tensors [byte]."""
        return self.result.nbytes


Stage = Plan | Whole


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A recipe bound to a model; `anatomy` is the model's before the first stage."""

    recipe: Recipe
    folder: Folder
    anatomy: Anatomy
    stages: tuple[Stage, ...]

    @property
    def streamed(self) -> tuple[Plan, ...]:
        """Return the stages that stream."""
        return tuple(stage for stage in self.stages if isinstance(stage, Plan))

    @property
    def whole(self) -> tuple[Whole, ...]:
        """Return the stages over the whole model."""
        return tuple(stage for stage in self.stages if isinstance(stage, Whole))

    @property
    def together(self) -> bool:
        """Return whether processes that `torchrun` has started share any of the work."""
        return any(stage.use.together for stage in self.whole)

    @property
    def placed(self) -> tuple[Placed, ...]:
        """Return what is done to each linear that the result still has, by the last to touch it."""
        last = self.stages[-1]
        if self.anatomy.family == FOREIGN and isinstance(last, Whole):
            return ()
        if isinstance(last, Plan) and len(self.stages) == 1:
            return last.placed
        kept = {site.module: site.shape for site in _sites_after(last)}
        found = {p.site.module: p for stage in self.streamed for p in stage.placed}
        return tuple(p for p in found.values() if kept.get(p.site.module) == p.site.shape)

    @property
    def skipped(self) -> Mapping[str, str]:
        """Return what the last stage over linears leaves alone, and why."""
        return self.streamed[-1].skipped if self.streamed else {}

    @property
    def account(self) -> Account:
        """Return what becomes of each tensor of the source."""
        found = self.anatomy.account
        changed = any(not stage.folder.config.get("quantization_config") for stage in self.whole)
        return found.alone if changed else found

    @property
    def choice(self) -> Choice:
        """Return the dialect that the result is written in, and why."""
        coded = [stage for stage in self.streamed if stage.schemes]
        return coded[-1].choice if coded else choose({})

    @property
    def rounds(self) -> bool:
        """Return whether any linear becomes codes."""
        return any(p.scheme is not None and not p.scheme.is_plain for p in self.placed)

    @property
    def needs_statistics(self) -> bool:
        """Return whether any step looks at activations."""
        reads = any(not stage.use.tensorwise for stage in self.whole)
        return reads or any(stage.needs_statistics for stage in self.streamed)

    @property
    def weights_bytes(self) -> int:
        """Exact size of the result's tensors [byte]."""
        return self.stages[-1].weights_bytes


def pipeline(recipe: Recipe, folder: Folder) -> Pipeline:
    """Bind a recipe to a model folder, stage after stage.

    One with an allocation is bound as if all weights were alike: the size is that of the result. What
    codes of the source stand for is read in 16 bits where it is stored as plain numbers.
    """
    refuse_compressed(folder)
    found = _pipeline(recipe, folder)
    names = _stored_plain(found.stages[0]) & folder.decoded
    return _pipeline(recipe, folder.rounded(names)) if names else found


def _stored_plain(stage: Stage) -> frozenset[str]:
    """Return the tensors of the source that a stage leaves as the numbers that they are."""
    if isinstance(stage, Plan):
        return stage.copied
    return frozenset[str]() if stage.use.tensorwise else frozenset(stage.folder.tensors)


def _pipeline(recipe: Recipe, folder: Folder) -> Pipeline:
    bare = all(isinstance(s.use, ModelPass) and s.use.tensorwise for s in recipe.steps)
    found = anatomy(folder, bare=bare)
    recipe = replace(recipe, precision=settled(recipe, found))
    stages: list[Stage] = []
    ordinary = without_sensitivities(recipe, folder)
    left, before = folder, 0
    for steps in _grouped(ordinary.steps):
        stage = _stage(ordinary, steps, left, before)
        stages.append(stage)
        left, before = stage_leaves(stage), before + len(steps)
    return Pipeline(recipe, folder, found, tuple(stages))


def _grouped(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield the steps of each stage."""
    numbered = enumerate(steps)
    for _, group in groupby(
        numbered, key=lambda pair: pair[0] if isinstance(pair[1].use, ModelPass) else -1
    ):
        yield tuple(step for _, step in group)


def _stage(recipe: Recipe, steps: tuple[Step, ...], left: Folder, before: int) -> Stage:
    use = steps[0].use
    where = f"recipe {recipe.name}, step {before + 1} ({use.name})"
    coded = bool(left.config.get("quantization_config"))
    if not isinstance(use, ModelPass):
        if coded:
            raise RecipeError(
                f"{where} comes after a step that has quantized the model",
                "Put the steps that work on linears and blocks beside each other.",
            )
        return plan(replace(recipe, steps=steps), left, before)
    if coded and not use.coded:
        raise RecipeError(
            f"{where} works on plain numbers, and a step before it has quantized the model",
            "Put it before the steps that quantize.",
        )
    try:
        return _whole(use, left, before + 1, where)
    except UnsupportedError as error:
        raise RecipeError(
            f"{where} cannot change this model: {error.message}", error.hint
        ) from error


def _whole(use: ModelPass, left: Folder, number: int, where: str) -> Whole:
    """Bind a pass over the whole model to what it will find."""
    if not use.tensorwise:
        find(left.config)
    if why := use.refuses(left.config):
        raise RecipeError(f"{where} cannot change this model: {why}", "Use other settings there.")
    config = use.config(left.config)
    if not config.get("quantization_config"):
        config = alone(config)
    try:
        changed = _same(left, config, use) if use.tensorwise else _changed(left, config)
        return Whole(number, use, left, changed)
    except WhetError as error:
        raise RecipeError(f"{where} would leave no sound model: {error.message}") from error


def _changed(left: Folder, config: Mapping[str, Any]) -> Outline:
    """Return the outline that a configuration calls for; each tensor keeps its type."""
    if config.get("quantization_config"):
        return _same(left, config)
    before = find(left.config)
    old = before.architecture(left.config, left.tensors)
    family = find(config)
    arch = replace(family.architecture(config), prefix=old.prefix, stacked=old.stacked)
    held = {name: stored.info.dtype for name, stored in left.tensors.items()}
    usual = max(held.values(), key=list(held.values()).count)
    shapes = family.tensors(arch).items()
    return Outline(
        left.path, config, {name: (held.get(name, usual), shape) for name, shape in shapes}
    )


def _same(left: Folder, config: Mapping[str, Any], use: ModelPass | None = None) -> Outline:
    """Return an outline with the tensors that there are, in the types in which a pass leaves them."""
    held = {name: (s.info.dtype, s.info.shape) for name, s in left.tensors.items()}
    if use is not None:
        held = {name: (use.stored(dtype), shape) for name, (dtype, shape) in held.items()}
    return Outline(left.path, config, held)


def stage_leaves(stage: Stage) -> Outline:
    """Return the outline of what a stage leaves."""
    if isinstance(stage, Whole):
        return stage.result
    held = stage.folder.tensors
    infos = {stage.renamed.get(name, name): held[name].info for name in stage.copied}
    shapes: Layout = {name: (info.dtype, info.shape) for name, info in infos.items()}
    for placed in stage.placed:
        if placed.site.tensor in stage.rewritten and placed.site.tied is None:
            shapes |= _layout(stage, placed)
    return Outline(stage.folder.path, stage.config, shapes)


def _layout(stage: Plan, placed: Placed) -> Layout:
    if placed.scheme is not None:
        return stage.choice.dialect.layout(placed.site, placed.scheme)
    dtype = stage.folder.tensors[placed.site.tensor].info.dtype
    return plain_layout(placed.site, Float(FLOATS["F32" if dtype == "F64" else dtype]))


def _sites_after(stage: Stage) -> tuple[Site, ...]:
    """Return the linears of what a stage leaves."""
    left = stage_leaves(stage)
    family = find(left.config)
    return family.sites(family.architecture(left.config, left.tensors))
