"""What whet can do, as functions: the command line and programs call these and nothing below.

    import whet
    result = whet.compress("demo", recipe="int4", out="demo-int4")
    engine = whet.load(result.path)

Nothing heavy is imported before a function that needs it is called. With `follow_links` files that a
model folder links to elsewhere are read; otherwise they are refused.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from whet.base.errors import UnsupportedError
from whet.base.paths import local_path
from whet.base.threads import sleep_while_waiting
from whet.store.regular import following_links

if TYPE_CHECKING:
    from whet.api.catalogue import Entry
    from whet.api.checks import Check
    from whet.api.compression import Result
    from whet.api.dry_run import Preview
    from whet.api.explanation import Explanation
    from whet.api.inspection import Inspection
    from whet.api.operators import Operators
    from whet.base.record import Record
    from whet.formats.keeping import Keeping
    from whet.recipe.progress import Progress
    from whet.runtime.engine import Engine
    from whet.runtime.executor import Choice, Inputs, Kernels
    from whet.search.ask import Found
    from whet.search.limits import Objective, Words

Source = str | os.PathLike[str]
Resume = Literal["auto", "required", "never"]


def compress(  # noqa: PLR0913
    source: Source,
    recipe: Source = "int4",
    *,
    set: Sequence[str] = (),  # noqa: A002 - named like the flag
    calibration: str | None = None,
    keep_embeddings: bool = False,
    out: Source | None = None,
    resume: Resume = "auto",
    overwrite: bool = False,
    seed: int | None = None,
    memory: str | int | None = None,
    offline: bool = False,
    follow_links: bool = False,
    progress: "Progress | None" = None,
    stopped: Callable[[], bool] | None = None,
) -> "Result":
    """Compress a model by a recipe; return the published folder and its records.

    `set` holds settings like "gptq.format=int3-g64"; `calibration` replaces the recipe's source;
    `keep_embeddings` leaves embedding and head as they are; `memory` ("1.5GiB") is what the process
    may take, half of what is free unless given: hidden states of the text that do not fit go to
    disk. `stopped` is asked before each block, and if it says yes the run stops, resumable. Of
    processes that `torchrun` has started all call it alike, and the first one writes.
    """
    require("torch", "compress")
    from whet.api import compression as work
    from whet.base.size import parse_size
    from whet.train.parallel import Team

    with following_links(follow_links):
        bound = work.bound(
            str(source),
            str(recipe),
            set,
            calibration,
            seed,
            keep_embeddings=keep_embeddings,
            offline=offline,
        )
        target = (
            local_path(out) if out is not None else work.default_out(str(source), bound.recipe.name)
        )
        if not Team.announced().first:
            return work.followed(bound, target, stopped)
        return work.carried_out(
            bound,
            target,
            resume=resume,
            overwrite=overwrite,
            memory_limit=None if memory is None else parse_size(memory, "--memory"),
            progress=progress,
            stopped=stopped,
        )


def preview(  # noqa: PLR0913
    source: Source,
    recipe: Source = "int4",
    *,
    set: Sequence[str] = (),  # noqa: A002 - named like the flag
    calibration: str | None = None,
    keep_embeddings: bool = False,
    out: Source | None = None,
    seed: int | None = None,
    memory: str | int | None = None,
    offline: bool = False,
    follow_links: bool = False,
) -> "Preview":
    """Return what `compress` would do: exact output size, predicted memory, disk and time, schemes."""
    require("torch", "compress")
    from whet.api import compression as work
    from whet.api.dry_run import previewed
    from whet.base.size import parse_size

    with following_links(follow_links):
        bound = work.bound(
            str(source),
            str(recipe),
            set,
            calibration,
            seed,
            keep_embeddings=keep_embeddings,
            offline=offline,
        )
        target = (
            local_path(out) if out is not None else work.default_out(str(source), bound.recipe.name)
        )
        limit = None if memory is None else parse_size(memory, "--memory")
        return previewed(bound, target, limit)


def search(  # noqa: PLR0913
    source: Source,
    *,
    out: Source | None = None,
    objective: "Objective" = "quality",
    time: str | None = None,
    calibration: str | None = None,
    samples: int = 128,
    levels: Sequence[str] = (),
    skip: Sequence[str] = (),
    structures: bool = True,
    cache: Sequence[str] = (),
    recovery: bool = True,
    target: str | None = None,
    data: str | None = None,
    sweep: Source | None = None,
    resume: Resume = "auto",
    overwrite: bool = False,
    seed: int = 0,
    offline: bool = False,
    follow_links: bool = False,
    progress: "Progress | None" = None,
    stopped: Callable[[], bool] | None = None,
    **words: "Unpack[Words]",
) -> "Found":
    """Find the best model within limits; return the published folder and what led to it.

    Limits are words as on the command line: `max_size="400MB"`, `min_decode="40tok/s"`,
    `max_ttft="0.5s@512"`. `cache` names what keys and values may be kept in. Raises QualityError
    where no model keeps them all, naming the nearest.
    """
    require("torch", "compress")
    require("optuna", "search")
    from whet.api.searching import Wish, searched
    from whet.search.limits import limits

    with following_links(follow_links):
        wish = Wish(
            str(source),
            limits(**words),
            objective,
            time,
            calibration or "builtin",
            samples,
            tuple(levels),
            tuple(skip),
            structures,
            tuple(cache),
            recovery,
            target,
            data or "builtin",
            seed,
            None if sweep is None else str(sweep),
            offline,
        )
        place = None if out is None else local_path(out)
        return searched(
            wish, place, resume=resume, overwrite=overwrite, progress=progress, stopped=stopped
        )


def load(
    folder: Source,
    *,
    executor: "Choice" = "auto",
    kernels: "Kernels" = "auto",
    cache: "Keeping | None" = None,
    inputs: "Inputs" = "int16",
    draft: "Source | Literal[False] | None" = None,
    offline: bool = False,
    follow_links: bool = False,
) -> "Engine":
    """Return a model ready to generate: a compressed folder, or any source.

    `executor` "auto" takes the native kernels, or the reference (torch) where these refuse;
    `kernels` "require" makes that an error. `cache` is what keys and values are kept in, e.g. "int8";
    None: what the folder says. `inputs` "int8" reads prompts faster, by kernels that round the inputs of
    integer weights to 8 bits, where the folder does not say; "int16" adds nothing that one can measure.
    `draft` is a smaller model with the same tokens, whose guesses this one
    checks: it writes the same text, faster where they are often right. None: the one that the folder
    has inside, if it has one; False: none.
    """
    from whet.runtime.engine import load as loaded

    with following_links(follow_links):
        guess = draft if draft is None or draft is False else str(draft)
        return loaded(
            str(folder),
            executor,
            kernels,
            cache=cache,
            inputs=inputs,
            unpacked=None,
            draft=guess,
            offline=offline,
        )


def measure(  # noqa: PLR0913
    folder: Source,
    *,
    against: Source | None = None,
    data: str | None = None,
    speed: bool = False,
    draft: Source | None = None,
    tasks: Sequence[str] = (),
    executor: "Choice" = "auto",
    kernels: "Kernels" = "auto",
    cache: "Keeping | None" = None,
    inputs: "Inputs" = "int16",
    offline: bool = False,
    follow_links: bool = False,
    progress: "Progress | None" = None,
) -> "list[Record]":
    """Measure a folder's quality, against its original if given; its speed; `tasks`.

    A task is a local .jsonl file of multiple-choice questions, or the name of one of lm-eval.

    `draft` is a smaller model: how much faster the folder generates by its guesses is timed too.
    `cache` is what the folder's keys and values are kept in, and `inputs` what its inputs are rounded to,
    as `load` takes them.
    """
    from whet.api.measurement import measured

    with following_links(follow_links):
        return measured(
            str(folder),
            None if against is None else str(against),
            data,
            speed=speed,
            draft=None if draft is None else str(draft),
            tasks=tasks,
            executor=executor,
            kernels=kernels,
            cache=cache,
            inputs=inputs,
            offline=offline,
            progress=progress,
        )


def inspect(folder: Source, *, offline: bool = False, follow_links: bool = False) -> "Inspection":
    """Return what a model folder holds: family, sizes, formats, evidence. Needs no torch."""
    from whet.api.inspection import inspection
    from whet.store.resolve import resolve

    with following_links(follow_links):
        return inspection(resolve(str(folder), offline))


def graph(
    folder: Source, *, rows: int = 512, offline: bool = False, follow_links: bool = False
) -> "Operators":
    """Return a folder's operators before and after each rewrite, and their memory. Needs no torch.

    `rows` is the most tokens of one step.
    """
    from whet.api.operators import operators
    from whet.store.resolve import resolve

    with following_links(follow_links):
        return operators(resolve(str(folder), offline), rows)


def explain(folder: Source) -> "Explanation":
    """Return why a folder is as it is, told from its records: an account and tables.

    Of a folder that a search has made, the choice; of any other that whet wrote, what was done.
    """
    from whet.api.explanation import explanation

    return explanation(local_path(folder))


def log_trials(records: Iterable["Record"], folder: Source) -> int:
    """Write the trials of a search to a folder as a log for TensorBoard; return how many runs."""
    require("torch", "compress")
    from whet.train.trial_board import trials_to_tensorboard

    return trials_to_tensorboard(records, local_path(folder))


def verify(folder: Source) -> list[str]:
    """Return how a folder differs from its manifest, a sentence each; none if it is intact.

    A GGUF file has no manifest: it is read through, and the first number that is none is named.
    """
    from whet.base.errors import MissingError
    from whet.store.finite import find_nonfinite
    from whet.store.folder import Folder, gguf_file
    from whet.store.manifest import verify as differences

    path = local_path(folder)
    if (file := gguf_file(path)) is not None:
        found = find_nonfinite(Folder(file))
        return [f"{file}: {found[0]} is not finite at {list(found[1])}"] if found else []
    if not path.is_dir():
        raise MissingError(f"{path} is no folder", "Give a folder that whet has written.")
    return differences(path)


def recipes() -> "tuple[Entry, ...]":
    """Return the recipes that come with whet."""
    from whet.api.catalogue import recipes as found

    return found()


def methods() -> "tuple[Entry, ...]":
    """Return the methods that a recipe's steps can use."""
    from whet.api.catalogue import methods as found

    return found()


def formats() -> "tuple[Entry, ...]":
    """Return a number format of every kind."""
    from whet.api.catalogue import formats as found

    return found()


def families() -> "tuple[Entry, ...]":
    """Return the model families."""
    from whet.api.catalogue import families as found

    return found()


def schema() -> dict[str, Any]:
    """Return the JSON Schema of recipe files."""
    require("torch", "compress")
    from whet.recipe.schema import schema as found

    return found()


def doctor() -> "tuple[Check, ...]":
    """Return what this machine and this installation can do."""
    from whet.api.checks import checks

    return checks()


def require(package: str, extra: str) -> None:
    """Raise unless a package of an optional set is installed; names the command that installs it."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise UnsupportedError(
            f"this needs {package}, which is not installed here", f'pip install "whet[{extra}]"'
        )
    sleep_while_waiting()
