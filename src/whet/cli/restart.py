"""What to do where a stopped run at the same place had other inputs: ask at a terminal, else refuse."""

import sys
from collections.abc import Callable
from typing import TypeVar

import click

from whet.base.errors import IdentityError

T = TypeVar("T")
QUESTION = "Start anew? Only the part of the stopped run is lost."


def run_or_restart(run: Callable[[str], T], resume: str) -> T:
    """Return what `run(resume)` gives; run anew where a person at a terminal agrees to it."""
    try:
        return run(resume)
    except IdentityError as error:
        if resume != "auto" or not _is_interactive():
            raise
        click.echo(f"whet: {error.message}", err=True)
        if not click.confirm(QUESTION, err=True):
            raise
    return run("never")


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
