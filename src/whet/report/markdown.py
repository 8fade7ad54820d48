"""The report as Markdown: the same tables as the page, for terminals and pull requests."""

import re
from collections.abc import Iterator

from whet.report import resources, summary, tables
from whet.report.evidence import Evidence, note
from whet.report.search import account
from whet.report.search import tables as found
from whet.report.search.found import searched
from whet.report.table import Table

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&])")


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is. Law: no character of it is markup."""
    return SPECIAL.sub(r"\\\1", text)


def fenced(text: str, language: str = "") -> str:
    """Return text as a block of code, in a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(data: Table) -> str:
    """Return a table; numbers are aligned to the right."""
    heads = "|".join(f" {escaped(column.label)} " for column in data.columns)
    rule = "|".join("--:" if column.numeric else "---" for column in data.columns)
    rows = ["|" + "|".join(f" {escaped(cell)} " for cell in row) + "|" for row in data.rows]
    below = [f"\n{escaped(data.note)}"] if data.note else []
    return "\n".join([f"|{heads}|", f"|{rule}|", *rows, *below])


def markdown(e: Evidence) -> str:
    """Return the report."""
    return "\n\n".join(_blocks(e)) + "\n"


def _blocks(e: Evidence) -> Iterator[str]:
    """Yield the paragraphs of the report."""
    recipe = summary.recipe_name(e)
    yield f"# {escaped(summary.title(e))}{f', {escaped(recipe)}' if recipe else ''}: report"
    yield escaped(" ".join(summary.sentences(e)))
    yield headlines(e)
    yield from quality(e)
    yield from _searched(e)
    for heading, make in (
        ("Tasks", tables.tasks),
        ("The modules that changed most", tables.worst),
        ("The tokens that changed most", tables.tokens),
        ("Stages", resources.stages),
        ("Size", resources.sizes),
        ("Speed", resources.speed),
        ("Guesses of a smaller model", resources.drafts),
        ("Fallbacks", tables.fallbacks),
        ("Left as they were", tables.skipped),
        ("Not used by the model", tables.unused),
        ("Schemes", tables.schemes),
        ("Time", resources.times),
        ("Environment", tables.environment),
    ):
        if (data := make(e)) is not None:
            yield f"## {heading}"
            yield table(data)
    yield from _made(e)


def headlines(e: Evidence) -> str:
    """Return the numbers that matter, as a list."""
    lines = (
        f"- **{escaped(line.label)}: {escaped(line.number)}**"
        f"{f' ({escaped(line.interval)})' if line.interval else ''}"
        f"{f', {escaped(line.sentence)}' if line.sentence else ''}"
        for line in summary.headlines(e)
    )
    return "\n".join(lines)


def quality(e: Evidence) -> Iterator[str]:
    """Yield the table of quality, or how to get it."""
    yield "## Quality"
    measured = tables.quality(e)
    if measured is None:
        yield "Not measured yet. This command measures it:"
        yield fenced(summary.measure_command(e))
    else:
        yield table(measured)


def _searched(e: Evidence) -> Iterator[str]:
    """Yield the account of a search and its tables."""
    search = searched(e)
    if search is None:
        return
    yield "## The search"
    yield from (escaped(paragraph) for paragraph in account.paragraphs(search))
    for heading, data in found.every(search):
        yield f"### {heading}"
        yield table(data)


def _made(e: Evidence) -> Iterator[str]:
    """Yield the exact command and the recipe."""
    if command := summary.command(e):
        yield "## The exact command"
        yield fenced(command)
    if recipe := note(e.last("recipe"), "yaml"):
        yield "## The recipe"
        yield fenced(recipe, "yaml")
