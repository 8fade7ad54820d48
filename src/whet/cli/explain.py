"""`whet explain`."""

from typing import TYPE_CHECKING

import click

from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.api.explanation import Explanation

WIDTH = 100  # of a line of the account


@verb("explain")
@click.argument("folder")
def command(*, folder: str, style: str, **_: object) -> None:
    """Say why a folder is as it is.

    Of a folder that `whet search` wrote: what bound the choice, which unit got which level and why,
    what was not worth it, and what more or less room would do. Of any other that whet wrote: what
    was done, where the damage is, and what fell back.
    """
    from whet import api
    from whet.cli import output

    found = api.explain(folder)
    if style == "json":
        records = output.record_dicts(found.records)
        told = {"path": str(found.path), "account": list(found.account), "records": records}
        output.result_json(told)
    else:
        _show(found)


def _show(found: "Explanation") -> None:
    """Write an explanation for people."""
    from textwrap import fill

    from whet.cli import output

    for paragraph in found.account:
        output.result(fill(paragraph, WIDTH, break_on_hyphens=False, break_long_words=False) + "\n")
    for heading, table in found.sections:
        output.result(f"{heading}\n")
        told = f"\n{table.note}" if table.note else ""
        output.result(f"{output.columns(table)}{told}\n")
