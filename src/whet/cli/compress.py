"""`whet compress`."""

import shlex
from typing import TYPE_CHECKING, Any

import click

from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.api.compression import Result
    from whet.api.dry_run import Preview


@verb("compress")
@click.argument("source")
@click.option(
    "--recipe",
    default="int4",
    show_default=True,
    metavar="NAME|FILE",
    help="A recipe that comes with whet (`whet list recipes`), or a YAML file.",
)
@click.option(
    "--set",
    "set",
    multiple=True,
    metavar="STEP.FIELD=VALUE",
    help="Change a setting, e.g. gptq.format=int3-g64 or 2.damping=0.02. Repeatable.",
)
@click.option(
    "--calibration",
    metavar="SRC",
    help="Text to calibrate on: .txt, .jsonl, a folder of them, builtin, hf:dataset.",
)
@click.option(
    "--keep-embeddings",
    is_flag=True,
    help="Leave embedding and head as they are, as if the recipe's `skip` named them.",
)
@click.option("-o", "--out", metavar="OUT", help="Where to write.  [default: <model>-<recipe>]")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be done: exact size, predicted memory, disk and time.",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "required", "never"]),
    default="auto",
    show_default=True,
    help="Whether to go on with an interrupted run.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@click.option(
    "--memory",
    metavar="SIZE",
    help="What the process may take, e.g. 1.5GiB; hidden states beyond it go to disk.  [default: half of "
    "the free memory]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of every random choice.  [default: the recipe's]",
)
def command(*, style: str, dry_run: bool, **asked: Any) -> None:  # noqa: ANN401 (options of click)
    """Make a model smaller, verified and with the evidence of what it cost.

    SOURCE is a model folder, `demo`, or a hub id `org/name[@revision]`. The result is a folder
    that loads elsewhere, published only after a fresh process has reloaded it. An interrupted run
    goes on where it stopped when the same command is given again.
    """
    from whet import api

    if dry_run:
        unused = ("resume", "overwrite")
        found = api.preview(**{name: value for name, value in asked.items() if name not in unused})
        _show_preview(found, style)
        return
    from whet.cli.interrupt import stoppable
    from whet.cli.progress import watched
    from whet.cli.restart import run_or_restart

    def run(resume: str) -> "Result":
        with watched() as progress, stoppable() as stop:
            given: dict[str, Any] = {**asked, "resume": resume}
            return api.compress(**given, progress=progress, stopped=stop)

    done = run_or_restart(run, asked["resume"])
    if done.ours:
        _show_result(done, str(asked["source"]), style)


def _show_result(done: "Result", source: str, style: str) -> None:
    """Write where the result is and what became of the model."""
    from whet.cli import output
    from whet.report import summary
    from whet.report.evidence import evidence

    if style == "json":
        output.result_json({"path": done.path, "records": output.record_dicts(done.records)})
        return
    e = evidence(done.records)
    size = summary.headlines(e)[0]
    output.result(f"{done.path}: {size.interval}, {size.number} {size.label}; {size.sentence}")
    output.result(" ".join(summary.sentences(e)[1:]))
    output.result(f"report: {done.path / 'report.html'}")
    output.tell("next: " + shlex.join(["whet", "measure", str(done.path), "--against", source]))


def _show_preview(found: "Preview", style: str) -> None:
    """Write what a run would do and need."""
    from whet.cli import output

    if style == "json":
        output.result_json(_preview_values(found))
        return
    from whet.model.account import grouped
    from whet.report import words as say
    from whet.report.table import Table, words

    plan, need = found.plan, found.need
    before, after = plan.folder.nbytes, found.weights_bytes
    rows = [
        ("output", f"{found.out}"),
        (
            "weights",
            f"{say.count(after)} bytes = {say.size(after)} (source {say.size(before)}, "
            f"{say.times(before / max(after, 1))} smaller)",
        ),
        ("peak memory", f"about {say.size(need.memory)}, {need.how}"),
        ("disk while it runs", f"about {say.size(need.disk)}"),
        ("time", f"about {say.duration(need.seconds)}, {need.how}" if need.seconds else "unknown"),
        ("written as", f"{plan.choice.dialect.name}: {plan.choice.reason}"),
    ]
    if plan.folder.left_out:
        rows.append(("not copied", f"{', '.join(plan.folder.left_out)} (no loader reads them)"))
    if told := plan.folder.stored_as:
        again = "; what is rounded here is rounded a second time" if plan.rounds else ""
        rows.insert(1, ("source", f"stored as {told}, decoded exactly{again}"))
    if plan.recipe.allocation is not None:
        rows.append(("formats", "by sensitivity, as the run begins; below as if all were alike"))
    if found.draft_bytes:
        rows.append(("draft", f"{say.size(found.draft_bytes)} more: a smaller model that guesses"))
    for stage in found.stages:
        told = f"{say.short_count(stage.facts['parameters'].value)} parameters"
        told += f", {say.size(stage.facts['bytes'].value)}"
        rows.append((f"after stage {stage.site}", f"{told}: {stage.notes['steps']}"))
    output.result(output.pairs(rows) + "\n")
    schemes = tuple((p.site.module, str(p.scheme), p.note) for p in plan.placed if p.scheme)
    output.result(output.columns(Table(words("module", "scheme", "note"), schemes)))
    left = tuple(plan.skipped.items())
    if left:
        output.result("\n" + output.columns(Table(words("left as it is", "why"), left)))
    if others := grouped(plan.account):
        heads = words("not used by the model", "what becomes of it", "why")
        output.result("\n" + output.columns(Table(heads, others)))


def _preview_values(found: "Preview") -> dict[str, Any]:
    """Return a preview as plain values."""
    from whet.cli import output

    plan, need = found.plan, found.need
    return {
        "out": found.out,
        "source_bytes": plan.folder.nbytes,
        "source_stored_as": plan.folder.stored_as or None,
        "output_bytes": found.weights_bytes,
        "draft_bytes": found.draft_bytes,
        "predicted": {name: fact.value for name, fact in need.facts().items()},
        "how": need.how,
        "not_copied": list(plan.folder.left_out),
        "dialect": {"name": plan.choice.dialect.name, "reason": plan.choice.reason},
        "modules": [
            {"module": p.site.module, "role": p.site.role, **p.scheme.plain(), "note": p.note}
            for p in plan.placed
            if p.scheme
        ],
        "skipped": dict(plan.skipped),
        "copied": dict(plan.account.copied),
        "left_out": dict(plan.account.left_out),
        "stages": output.record_dicts(found.stages),
    }
