"""A group of verbs whose files are imported when they are asked for, not before."""

from importlib import import_module

import click

VERBS = {  # verb: what it does, the first sentence of its help
    "compress": "Make a model smaller, verified and with the evidence of what it cost.",
    "search": "State limits, get the best model that meets them.",
    "measure": "Measure what a folder's compression cost, and how fast it is.",
    "run": "Generate text, or chat.",
    "inspect": "Show what a model folder holds.",
    "explain": "Say why a folder is as it is.",
    "verify": "Check every file of a folder against its manifest.",
    "list": "List recipes, methods, formats or families.",
    "schema": "Print the JSON Schema of recipes.",
    "doctor": "Show what this machine and this installation can do.",
}


class Verbs(click.Group):
    """The verbs. Law: help of any verb imports neither torch nor pydantic nor rich."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, importing its file."""
        if cmd_name not in VERBS:
            return None
        found: click.Command = import_module(f"whet.cli.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the arguments name, or offer the nearest one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], VERBS, 1, 0.5)
            told = f"Did you mean {close[0]!r}?" if close else f"Verbs: {', '.join(VERBS)}."
            raise click.UsageError(f"unknown verb {args[0]!r}. {told}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs without importing their files."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))
