"""`whet search`."""

import shlex
from typing import TYPE_CHECKING, Any

import click

from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.base.quantity import Quantity
    from whet.search.ask import Found


@verb("search")
@click.argument("source")
@click.option("--max-size", metavar="SIZE", help="Of the weight files, e.g. 400MB or 1.5GiB.")
@click.option("--max-bpw", type=float, metavar="BITS", help="Bits a weight of the blocks' linears.")
@click.option("--min-decode", metavar="RATE", help="Generation on this machine, e.g. 40tok/s.")
@click.option("--max-ttft", metavar="TIME@TOKENS", help="To the first token, e.g. 0.5s@512.")
@click.option(
    "--max-memory",
    metavar="SIZE[@TOKENS]",
    help="Of a process that runs it, e.g. 1GB or, after 8,192 tokens, 1GB@8192.",
)
@click.option("--max-kl", type=float, metavar="NAT", help="Distance from the original, e.g. 0.02.")
@click.option("--max-ppl-increase", metavar="SHARE", help="Of the perplexity, e.g. 2%.")
@click.option(
    "--objective",
    type=click.Choice(["quality", "speed", "size"]),
    default="quality",
    show_default=True,
    help="What is to be best within the limits.",
)
@click.option(
    "--time",
    metavar="TIME",
    help="For everything; the last compression is not cut short.  [default: 10m; 60m for wide models]",
)
@click.option("--calibration", metavar="SRC", help="Text to calibrate on.  [default: builtin]")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Windows of 512 tokens to calibrate on.",
)
@click.option(
    "--levels",
    metavar="FORMAT,…",
    help="Number formats to choose from.  [default: 2 to 8 bits, sparse, low rank]",
)
@click.option(
    "--cache",
    metavar="KIND,…",
    help="What keys and values may be kept in.  [default: bf16; int8 and kv4 for speed or memory]",
)
@click.option("--skip", multiple=True, metavar="PATTERN", help="Sites to leave alone. Repeatable.")
@click.option(
    "--structures/--no-structures",
    default=True,
    show_default=True,
    help="Try smaller shapes too, distilled, where there is time.",
)
@click.option(
    "--recovery/--no-recovery",
    default=True,
    show_default=True,
    help="Train the result in the time that is left, and keep it if that is better.",
)
@click.option("--target", metavar="PROFILE", help="A machine described by a YAML file.")
@click.option("--data", metavar="SRC", help="Text to measure the result on.  [default: builtin]")
@click.option("--sweep", metavar="DIR", help="Keep what options cost, for further searches.")
@click.option("-o", "--out", metavar="OUT", help="Where to write.  [default: <model>-found]")
@click.option(
    "--resume",
    type=click.Choice(["auto", "required", "never"]),
    default="auto",
    show_default=True,
    help="Whether to go on with an interrupted search.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--tensorboard", metavar="DIR", help="Write the trials as a TensorBoard log too.")
def command(
    *,
    style: str,
    levels: str | None,
    cache: str | None,
    tensorboard: str | None,
    **asked: Any,  # noqa: ANN401 (options of click)
) -> None:
    """State limits, get the best model that meets them.

    SOURCE is a model folder, `demo`, or a hub id `org/name[@revision]`. Every limit is hard: the
    result is measured before it is published, and if nothing meets them all, the command says which
    limit binds, what the nearest model has, and exits with 3. An interrupted search goes on where it
    stopped when the same command is given again.
    """
    from whet import api
    from whet.cli.interrupt import stoppable
    from whet.cli.progress import watched
    from whet.cli.restart import run_or_restart

    if tensorboard is not None:
        api.require("tensorboard", "train")
    asked |= {"levels": _names(levels), "cache": _names(cache)}

    def run(resume: str) -> "Found":
        with watched() as progress, stoppable() as stop:
            given: dict[str, Any] = {**asked, "resume": resume}
            return api.search(**given, progress=progress, stopped=stop)

    found = run_or_restart(run, asked["resume"])
    if tensorboard is not None:
        api.log_trials(found.records, tensorboard)
    _show(found, style)


def _names(text: str | None) -> tuple[str, ...]:
    """Return names that stand with commas between them."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _show(found: "Found", style: str) -> None:
    """Write what was found, how it keeps the limits, and where the account of it is."""
    from whet.cli import output

    if style == "json":
        output.result_json({"path": found.path, "records": output.record_dicts(found.records)})
        return
    from whet.report import words as say
    from whet.report.table import Table, words

    rows = [
        (
            record.notes["text"],
            *(_number(record.facts.get(name)) for name in ("predicted", "measured")),
            say.percent(record.facts["slack"].value) if "slack" in record.facts else "",
        )
        for record in found.records
        if record.step == "limit"
    ]
    output.result(f"{found.path}: the best model that was found within the limits\n")
    output.result(
        output.columns(Table(words("limit", "predicted", "measured", "left"), tuple(rows)))
    )
    output.result(f"report: {found.path / 'report.html'}")
    path = shlex.quote(str(found.path))
    output.tell(f"next: whet explain {path}; whet run {path}")


def _number(fact: "Quantity | None") -> str:
    """Return a fact as people read it; nothing where it is not known."""
    from whet.report.words import quantity

    return "" if fact is None else quantity(fact.value, fact.unit)
