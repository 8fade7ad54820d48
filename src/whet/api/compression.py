"""From a source and a recipe to a published folder: plan, execute, assemble, reload, report, publish."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whet.base.errors import FolderError, RecipeError, StoppedError
from whet.base.machine import peak_rss
from whet.base.paths import local_path
from whet.base.quantity import Quantity
from whet.base.record import Record, append_records
from whet.calibrate.hidden_states import MemoryBudget
from whet.calibrate.tokens import Heard, Tokens, calibration, ignore
from whet.model.opened import opened
from whet.recipe.allocation import allocated
from whet.recipe.assemble import output_records
from whet.recipe.carry import Journey
from whet.recipe.estimate import estimate, refuse_misfits
from whet.recipe.evidence import environment, plan_records, run_records
from whet.recipe.execute import RUN
from whet.recipe.file import dumps, loads, read
from whet.recipe.identity import identity
from whet.recipe.pipeline import Pipeline, pipeline
from whet.recipe.progress import Progress, Silence
from whet.recipe.reading import source_record
from whet.recipe.reload import reload
from whet.recipe.workspace import Resume, Workspace
from whet.report.render import write_pages
from whet.runtime.layouts import root
from whet.store.checkpoint import Checkpoint
from whet.store.durable import write_atomic
from whet.store.finite import find_nonfinite
from whet.store.folder import DRAFT, Folder
from whet.store.manifest import write_manifest
from whet.store.publish import staging_path
from whet.store.resolve import resolve
from whet.store.tokenizer import Tokenizer
from whet.train.parallel import END, Team
from whet.version import __version__

ALLOCATED = "allocated.yaml"  # the recipe with the formats that sensitivities call for
FEW, SHORT = 4, 64  # windows, and tokens in each, on which a recipe without statistics is checked


@dataclass(frozen=True, slots=True)
class Result:
    """A published folder and its evidence; `ours` is whether this process has written it."""

    path: Path
    records: tuple[Record, ...]
    ours: bool = True


def bound(
    source: str,
    recipe: str,
    settings: Sequence[str] = (),
    text: str | None = None,
    seed: int | None = None,
    *,
    keep_embeddings: bool = False,
    offline: bool = False,
) -> Pipeline:
    """Return a recipe bound to a model, with the command's own settings applied."""
    asked = read(recipe, [*settings, *([] if seed is None else [f"seed={seed}"])])
    if text is not None:
        asked = replace(asked, calibration=replace(asked.calibration, source=text))
    if keep_embeddings:
        asked = asked.keeping_ends()
    found = pipeline(asked, opened(resolve(source, offline), dense=True))
    draft_of(found)  # so that what is wrong with it is told before any work
    return found


def draft_of(bound_plan: Pipeline) -> Pipeline | None:
    """Return the plan of the smaller model that a recipe asks for beside its own."""
    recipe, team = bound_plan.recipe.drafts, Team.announced()
    if recipe is None:
        return None
    if team.size > 1:
        raise RecipeError(
            f"torchrun has started {team.size} processes, and a recipe with a draft is for one",
            "Start whet compress without torchrun.",
        )
    return pipeline(recipe, bound_plan.folder)


def default_out(source: str, recipe: str) -> Path:
    """Return where the result goes if nothing is said: `<model>-<recipe>` in the current folder."""
    path = local_path(source)
    name = path.absolute().resolve().name if path.name in {"", ".."} else path.name
    model = name if path.exists() else source.partition("@")[0].rpartition("/")[2]
    model = model or "model"
    return Path(f"{model}-{recipe}")


def windows_of(bound_plan: Pipeline) -> tuple[int, int]:
    """Return how many windows a plan asks for, and of how many tokens."""
    asked = bound_plan.recipe.calibration
    samples, length = asked.samples, min(asked.length, bound_plan.anatomy.context)
    if not bound_plan.needs_statistics:
        samples, length = min(samples, FEW), min(length, SHORT)
    return samples, length


def tokens_of(bound_plan: Pipeline, heard: Heard = ignore) -> Tokens:
    """Return the tokens that a plan runs on."""
    recipe, model, folder = bound_plan.recipe, bound_plan.anatomy, bound_plan.folder.path
    source, (samples, length) = recipe.calibration.source, windows_of(bound_plan)
    found = calibration(source, Tokenizer(folder), samples, length, recipe.seed, heard)
    if (highest := int(found.ids.max())) >= model.vocab:
        raise FolderError(
            f"{folder}: the tokenizer makes token {highest}, the model knows 0 to {model.vocab - 1}",
            "Are the tokenizer and the weights of the same model?",
        )
    return found


def carried_out(
    bound_plan: Pipeline,
    out: Path,
    *,
    resume: Resume = "auto",
    overwrite: bool = False,
    draft: Path | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Result:
    """Carry out a plan; nothing stands at `out` before everything is verified.

    `draft` is what the recipe's draft has made before, which is then not made again. `memory_limit`
    [byte] is for the process: hidden states beyond it go to disk.
    """
    began = time.perf_counter()
    team = Team.joined() if bound_plan.together else Team()
    small = draft_of(bound_plan)
    with Workspace(out, resume, overwrite=overwrite) as workspace:
        need = estimate(bound_plan, memory_limit)
        refuse_misfits(need, out)
        _refuse_nonfinite(bound_plan.folder)
        told, stop = progress or Silence(), stopped or (lambda: False)
        tokens, digests = _read(bound_plan, told, stop), bound_plan.folder.digest()
        workspace.identify(identity(dumps(bound_plan.recipe), digests, tokens.digest))
        reading = source_record(bound_plan, root())
        budget = MemoryBudget(need.hidden_states)
        bound_plan = _allocated(bound_plan, tokens, workspace.folder, told, stop, budget)
        journey = Journey(bound_plan, tokens, workspace.folder, workspace.final, told, stop, budget)
        files = journey.run()
        bound_plan = journey.settled
        checked = reload(workspace.final, journey.probe)
        drafted = _drafted(small, workspace, draft, told, stop)
        about = (
            *plan_records(bound_plan, tokens),
            *journey.records(),
            *output_records(bound_plan, workspace.final, files),
            reading,
            checked.record(),
            *drafted,
        )
        run = (*run_records(), *journey.times(), _total(time.perf_counter() - began))
        _describe(bound_plan, workspace.final, about, run)
        workspace.publish()
    team.say(END)
    return Result(out, (*about, *run))


def _read(bound_plan: Pipeline, told: Progress, stop: Callable[[], bool]) -> Tokens:
    """Read the text that a plan runs on, telling how far; a request to stop is heard at once."""
    samples, length = windows_of(bound_plan)
    wanted = samples * length
    told.start(wanted, "read text")

    def heard(tokens: int) -> None:
        told.advance(min(tokens, wanted), "read text")
        if stop():
            raise StoppedError("stopped while reading the text; nothing was done yet")

    found = tokens_of(bound_plan, heard)
    told.finish()
    return found


def _allocated(
    bound_plan: Pipeline,
    tokens: Tokens,
    work: Path,
    told: Progress,
    stop: Callable[[], bool],
    budget: MemoryBudget,
) -> Pipeline:
    """Return the plan with the formats that sensitivities call for, as a killed run has found them."""
    recipe, path = bound_plan.recipe, work / ALLOCATED
    if recipe.allocation is None:
        return bound_plan
    if not path.is_file():
        told.start(100, "allocate")
        source = Checkpoint(bound_plan.folder)
        found = allocated(
            recipe,
            source,
            tokens.ids,
            work / "gradients",
            lambda done, what: told.advance(int(100 * done), what),
            stop,
            budget,
        )
        told.finish()
        write_atomic(path, [dumps(found).encode()])
    return pipeline(loads(path.read_text(encoding="utf-8")), bound_plan.folder)


def _drafted(
    bound_plan: Pipeline | None,
    workspace: Workspace,
    ready: Path | None,
    told: Progress,
    stop: Callable[[], bool],
) -> tuple[Record, ...]:
    """Make the smaller model that guesses, in a folder inside; return its record (step "drafted")."""
    if bound_plan is None:
        return ()
    made = workspace.folder / DRAFT
    if ready is not None:
        shutil.rmtree(made, ignore_errors=True)  # what a killed run has copied may be a part
        shutil.copytree(ready, made)
    elif not made.is_dir():
        carried_out(bound_plan, made, progress=told, stopped=stop)
    small = opened(made.replace(workspace.final / DRAFT))
    facts = {"bytes": Quantity(small.nbytes, "byte", "weight files on disk")}
    notes = {"steps": " + ".join(step.use.name for step in bound_plan.recipe.steps)}
    return (Record("drafted", "", facts, notes=notes),)


def followed(bound_plan: Pipeline, out: Path, stopped: Callable[[], bool] | None = None) -> Result:
    """Do this process's share of what the first process of `torchrun` carries out."""
    if bound_plan.together:
        work = staging_path(out)
        told = (Silence(), stopped or (lambda: False))
        Journey(bound_plan, tokens_of(bound_plan), work, work / "final", *told).follow()
    return Result(out, (), ours=False)


def _refuse_nonfinite(folder: Folder) -> None:
    found = find_nonfinite(folder)
    if found is not None:
        name, index = found
        raise FolderError(
            f"{folder.path}: {name}[{', '.join(map(str, index))}] is not a finite number",
            "The checkpoint is damaged, or was saved from a run that diverged; get it again.",
        )


def _total(seconds: float) -> Record:
    facts = {
        "seconds": Quantity(seconds, "s", "wall time of the last run of the command"),
        "peak_rss": Quantity(peak_rss(), "byte", "largest resident size"),
    }
    return Record("time", "total", facts)


def _describe(
    bound_plan: Pipeline, folder: Path, about: tuple[Record, ...], run: tuple[Record, ...]
) -> None:
    """Add the evidence to a folder: records, pages, and at last the manifest."""
    append_records(folder / "records.jsonl", about)
    append_records(folder / RUN, run)
    write_pages(folder)
    facts = {
        "whet": __version__,
        "seed": bound_plan.recipe.seed,
        "source": bound_plan.folder.digest(),
        "calibration": next(r.notes["digest"] for r in about if r.step == "calibration"),
        "environment": environment(),
    }
    write_manifest(folder, facts)
