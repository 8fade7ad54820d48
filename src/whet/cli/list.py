"""`whet list`."""

from typing import TYPE_CHECKING

import click

from whet.base.errors import RecipeError
from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.api.catalogue import Entry

KINDS = ("recipes", "methods", "formats", "families")


@verb("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", required=False)
def command(*, kind: str, name: str | None, style: str, **_: object) -> None:
    """List recipes, methods, formats or families.

    With NAME only that one; a recipe is printed as YAML, to be kept in a file and edited.
    """
    from dataclasses import asdict

    from whet import api
    from whet.cli import output

    if kind == "recipes" and name is not None and style == "human":
        output.result(_recipe(name).rstrip("\n"))
        return
    known: tuple[Entry, ...] = getattr(api, kind)()
    entries = known if name is None else (_named(kind, name, known),)
    if style == "json":
        output.result_json([asdict(entry) for entry in entries])
    else:
        _show(entries)


def _show(entries: "tuple[Entry, ...]") -> None:
    """Write entries as a table: names, facts, what they are."""
    from whet.cli import output
    from whet.report.table import Table, words

    facts = list(dict.fromkeys(fact for entry in entries for fact in entry.facts))
    rows = tuple((e.name, *(e.facts.get(fact, "") for fact in facts), e.summary) for e in entries)
    output.result(output.columns(Table(words("name", *facts, "what"), rows)))


def _recipe(name: str) -> str:
    """Return the YAML of a recipe."""
    from whet import api
    from whet.api.catalogue import recipe_text

    text = recipe_text(name)
    return _named("recipes", name, api.recipes()).summary if text is None else text


def _named(kind: str, name: str, known: "tuple[Entry, ...]") -> "Entry":
    """Return the entry of a name; formats may be any that can be written, not only the examples."""
    from difflib import get_close_matches

    found = next((entry for entry in known if entry.name == name), None)
    if found is not None:
        return found
    if kind == "formats":
        from whet.api.catalogue import format_entry

        return format_entry(name)
    names = [entry.name for entry in known]
    close = get_close_matches(name, names, 1, 0.5)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
    raise RecipeError(f"there is no {name!r} among the {kind}", hint)
