"""The records that a plan gives before any work is done, and those about the machine and the run."""

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import version
from math import prod

import psutil
import torch

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.calibrate.tokens import Tokens
from whet.model.family import find
from whet.recipe.anatomy import FOREIGN
from whet.recipe.file import dumps
from whet.recipe.pipeline import Pipeline, Stage, Whole, stage_leaves
from whet.recipe.plan import Placed
from whet.store.folder import Folder
from whet.store.outline import Outline
from whet.store.source_card import source_card, source_name
from whet.version import __version__


def plan_records(plan: Pipeline, tokens: Tokens) -> Iterator[Record]:
    """Yield what was decided: source, recipe, calibration, and the scheme of every module."""
    folder, text = plan.folder, dumps(plan.recipe)
    facts = {"bytes": Quantity(folder.nbytes, "byte", "weight files on disk")}
    notes = {"path": source_name(folder.path), "family": plan.anatomy.family}
    notes["model_type"] = str(folder.config.get("model_type", ""))
    notes |= source_card(folder.path)
    if folder.left_out:
        notes["not_copied"] = ", ".join(folder.left_out)
    if folder.stored_as:
        notes |= {"stored_as": folder.stored_as, "rounded_again": "yes" if plan.rounds else "no"}
    yield Record("source", "", facts | {"parameters": _parameters(folder)}, notes=notes)
    yield Record("recipe", "", notes={"name": plan.recipe.name, "yaml": text})
    samples, length = tokens.ids.shape
    seen = {
        "tokens": Quantity(samples * length, "1", "windows × length"),
        "samples": Quantity(samples, "1", f"windows of {length} tokens"),
    }
    used = {"source": tokens.description, "digest": tokens.digest}
    used["use"] = "statistics" if plan.needs_statistics else "drift and reload check only"
    yield Record("calibration", "", seen, notes=used)
    yield from stage_records(plan)
    yield from (_scheme(placed) for placed in plan.placed if placed.scheme is not None)
    for module, reason in plan.skipped.items():
        yield Record("skip", module, notes={"reason": reason})
    for name, use, reason in plan.account.unused:
        yield Record("tensor", name, notes={"use": use, "reason": reason})


def stage_records(plan: Pipeline) -> Iterator[Record]:
    """Yield what each stage leaves, where a recipe has several or changes the whole model."""
    if not plan.whole:
        return
    for number, stage in enumerate(plan.stages, 1):
        left = stage_leaves(stage)
        facts = {
            "parameters": Quantity(
                _numbers(left, bare=plan.anatomy.family == FOREIGN),
                "1",
                "of the model after the stage",
            ),
            "bytes": Quantity(left.nbytes, "byte", "tensors after the stage"),
        }
        notes = {"steps": " + ".join(_uses(stage)), "number": str(number)}
        yield Record("stage", str(number), facts, notes=notes)


def _uses(stage: Stage) -> list[str]:
    """Return the names of a stage's steps."""
    if isinstance(stage, Whole):
        return [stage.use.name]
    return [step.use.name for step in stage.recipe.steps]


def _parameters(folder: Folder) -> Quantity:
    count = sum(prod(stored.info.shape) for stored in folder.tensors.values())
    return Quantity(count, "1", "numbers stored in the source")


def _numbers(left: Outline, *, bare: bool) -> int:
    """Return how many numbers a model of a known family has; codes stand for those they code."""
    if bare:
        return sum(prod(stored.info.shape) for stored in left.tensors.values())
    family = find(left.config)
    arch = family.architecture(left.config, left.tensors)
    return sum(prod(shape) for shape in family.tensors(arch).values())


def _scheme(placed: Placed) -> Record:
    site, scheme = placed.site, placed.scheme
    assert scheme is not None
    bits = scheme.format.bits(site.shape)
    facts = {
        "bits_per_weight": Quantity(
            bits / (site.shape[0] * site.shape[1]), "bit", "stored ÷ weights"
        ),
        "bytes": Quantity(bits / 8, "byte", "codes, scales and zero points"),
    }
    layer = "" if site.layer is None else str(site.layer)
    notes = {"role": site.role, "layer": layer, "format": str(scheme.format)}
    notes |= {"activation": str(scheme.activation or ""), "reason": placed.note}
    return Record("scheme", site.module, facts, notes=notes)


def run_records() -> Iterator[Record]:
    """Yield the command and the machine."""
    notes = {"argv": shlex.join(["whet", *sys.argv[1:]]), "version": __version__}
    yield Record("command", "", notes=notes)
    memory = {"memory": Quantity(psutil.virtual_memory().total, "byte", "of the machine")}
    yield Record("environment", "", memory, notes=environment())


def environment() -> dict[str, str]:
    """Return what the result may depend on besides its inputs."""
    return {
        "os": f"{platform.system()} {platform.release()}",
        "cpu": _processor(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
