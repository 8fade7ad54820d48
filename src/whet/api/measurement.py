"""Measurements of a folder, as records."""

from collections.abc import Callable, Sequence

from whet.base.record import Record
from whet.formats.keeping import Keeping
from whet.measure.choices import is_question_file, read_questions
from whet.measure.guided import guided
from whet.measure.multiple_choice import score_questions
from whet.measure.quality import compare
from whet.measure.speed import speed as timed
from whet.measure.tasks import refuse_tasks
from whet.measure.tasks import tasks as scored
from whet.recipe.progress import Progress, Silence
from whet.runtime.engine import load
from whet.runtime.executor import Choice, Inputs, Kernels
from whet.store.resolve import resolve

Told = Callable[[int, int], None]


def measured(  # noqa: PLR0913
    folder: str,
    against: str | None,
    data: str | None,
    *,
    speed: bool,
    draft: str | None,
    tasks: Sequence[str],
    executor: Choice,
    kernels: Kernels,
    cache: Keeping | None,
    inputs: Inputs,
    offline: bool,
    progress: Progress | None,
) -> list[Record]:
    """Return what compression has cost a folder and, if asked, its speed and its scores in tasks."""
    files = [name for name in tasks if is_question_file(name)]
    names = [name for name in tasks if not is_question_file(name)]
    for name in files:
        read_questions(name)  # so that a wrong row is told before any work
    if names:
        refuse_tasks(names)
    shown = progress or Silence()
    told = _reader(shown, "windows")
    records = compare(
        folder,
        against,
        executor=executor,
        kernels=kernels,
        cache=cache,
        inputs=inputs,
        data=data or "builtin",
        offline=offline,
        told=told,
    )
    if speed:
        engines = [load(folder, executor, kernels, cache=cache, inputs=inputs, offline=offline)]
        if against:
            engines.append(load(against, executor, kernels, offline=offline))
        records += timed(engines, told=_reader(shown, "timed rounds"))
    if draft:
        mine = load(
            folder, executor, kernels, cache=cache, inputs=inputs, draft=False, offline=offline
        )
        small = load(draft, executor, kernels, inputs=inputs, offline=offline)
        records.append(guided(mine, small, data or "builtin", _reader(shown, "texts with a draft")))
    if names:
        records += scored(resolve(folder, offline), names, offline=offline)
    if files:
        mine = load(folder, executor, kernels, cache=cache, draft=False, offline=offline)
        theirs = load(against, executor, kernels, offline=offline) if against else None
        questions = _reader(shown, "questions")
        records += [score_questions(name, mine, theirs, questions) for name in files]
    shown.finish()
    return records


def _reader(progress: Progress, what: str) -> Told:
    """Return what hears of `done` units of `total`; the first word of it starts the count."""
    started: list[int] = []

    def told(done: int, total: int) -> None:
        if not started:
            progress.start(total, what)
            started.append(total)
        progress.advance(done, what)

    return told
