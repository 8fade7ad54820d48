"""`whet measure`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from whet.cli.options import running, verb

if TYPE_CHECKING:
    from whet.base.record import Record
    from whet.formats.keeping import Keeping
    from whet.runtime.executor import Choice, Inputs, Kernels


@verb("measure")
@click.argument("folder")
@click.option("--against", metavar="SOURCE", help="The original, to compare with token by token.")
@click.option(
    "--data",
    metavar="SRC",
    help="Text to measure on: .txt, .jsonl, a folder of them.  [default: builtin]",
)
@click.option("--speed", is_flag=True, help="Also time prefill and generation.")
@click.option("--draft", metavar="SOURCE", help="Also time generation with this model's guesses.")
@click.option(
    "--tasks",
    metavar="FILE|NAMES",
    multiple=True,
    help="Also score multiple-choice questions of a .jsonl file, or tasks of lm-eval. Repeatable.",
)
@running
def command(  # noqa: PLR0913
    *,
    folder: str,
    against: str | None,
    data: str | None,
    speed: bool,
    draft: str | None,
    tasks: tuple[str, ...],
    executor: "Choice",
    kernels: "Kernels",
    cache: "Keeping | None",
    inputs: "Inputs",
    style: str,
    offline: bool,
) -> None:
    """Measure what a folder's compression cost, and how fast it is.

    FOLDER is what `whet compress` wrote, or any SOURCE. With --against the numbers are differences
    on the same windows of text, with intervals. They are added to the records and the report of a
    folder that whet has written.
    """
    from whet import api
    from whet.base.paths import local_path
    from whet.cli.progress import watched

    with watched() as progress:
        records = api.measure(
            folder,
            against=against,
            data=data,
            speed=speed,
            draft=draft,
            tasks=[task for given in tasks for task in _tasks(given)],
            executor=executor,
            kernels=kernels,
            cache=cache,
            inputs=inputs,
            offline=offline,
            progress=progress,
        )
    _show(records, style)
    _keep(local_path(folder), records)


def _tasks(given: str) -> list[str]:
    """Return a file as it is, or names that stand with commas between them."""
    from whet.measure.choices import is_question_file

    return [given] if is_question_file(given) else [name.strip() for name in given.split(",")]


def _show(records: "list[Record]", style: str) -> None:
    """Write what was measured."""
    from whet.cli import output
    from whet.report import resources, summary, tables
    from whet.report.evidence import evidence

    for told in dict.fromkeys(r.notes["fallback"] for r in records if "fallback" in r.notes):
        output.tell(f"whet: runs by the reference executor: {told}")
    for told in dict.fromkeys(r.notes["disturbed"] for r in records if "disturbed" in r.notes):
        output.tell(f"whet: {told}")
    if style == "json":
        output.result_json({"records": output.record_dicts(records)})
        return
    e = evidence(records)
    for headline in summary.headlines(e)[1:]:
        if headline.number != tables.MISSING:
            told = f" ({headline.interval})" if headline.interval else ""
            output.result(f"{headline.label}: {headline.number}{told}, {headline.sentence}")
    timed = (resources.speed(e), resources.drafts(e), resources.kernels(e))
    for table in (tables.quality(e), tables.tasks(e), *timed):
        if table is not None:
            output.result("\n" + output.columns(table) + (f"\n{table.note}" if table.note else ""))


def _keep(folder: Path, records: "list[Record]") -> None:
    """Add the records to the folder's evidence, if whet has written it."""
    from whet.api.attach import attach, is_output
    from whet.cli import output

    if is_output(folder):
        attach(folder, records)
        output.tell(f"added to {folder / 'records.jsonl'} and {folder / 'report.html'}")
