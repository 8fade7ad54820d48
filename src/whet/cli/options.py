"""The options that every verb has, and types of values."""

from collections.abc import Callable
from typing import Any

import click

from whet.formats.keeping import KEEPINGS

Function = Callable[..., Any]


def everywhere() -> list[click.Parameter]:
    """Return the options that every verb has."""
    styles = click.Choice(["human", "json"])
    told = "How results are written to stdout."
    return [
        click.Option(
            ["--format", "style"], type=styles, default="human", show_default=True, help=told
        ),
        click.Option(
            ["--follow-links"],
            is_flag=True,
            expose_value=False,
            callback=_follow_links,
            help="Read files that a model folder links to elsewhere.",
        ),
        click.Option(["--offline"], is_flag=True, help="Open no network connection."),
    ]


def _follow_links(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    """Follow links out of model folders while the command runs."""
    if wanted:
        from whet.store.regular import following_links

        context.with_resource(following_links())


def running(function: Function) -> Function:
    """Add the options of the verbs that run a model."""
    choice = click.Choice(["auto", "native", "reference"])
    told = (
        "What computes: native kernels, or torch. auto is native, else reference with the reason."
    )
    kept = (
        "What keys and values are kept in. kv4 and kv2: 4 or 2 bits, keys by channel, values by token."
        "  [default: what the folder says, or bf16]"
    )
    required = "require makes it an error (69) where a kernel refuses."
    add = (
        click.option("--executor", type=choice, default="auto", show_default=True, help=told),
        click.option(
            "--inputs",
            type=click.Choice(["int16", "int8"]),
            default="int16",
            show_default=True,
            help="What kernels round inputs of integer weights to, where the folder does not say: "
            "int8 reads prompts faster and adds an error, which `whet measure --inputs int8` shows.",
        ),
        click.option("--cache", type=click.Choice(list(KEEPINGS)), help=kept),
        click.option(
            "--kernels",
            type=click.Choice(["auto", "require"]),
            default="auto",
            show_default=True,
            help=required,
        ),
    )
    for one in reversed(add):
        function = one(function)
    return function


def verb(name: str) -> Callable[[Function], click.Command]:
    """Return a decorator that makes a verb; its help begins with the sentence in `VERBS`."""

    def made(function: Function) -> click.Command:
        context = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        command = click.command(name, context_settings=context)(function)
        command.params += everywhere()
        return command

    return made
