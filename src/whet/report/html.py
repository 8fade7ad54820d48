"""The report as one HTML file: no network, no scripts, light and dark, ready to print."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from whet.report import figures, resources, summary, tables
from whet.report import words as say
from whet.report.evidence import Evidence, note
from whet.report.palette import style
from whet.report.search import account, grids, plot
from whet.report.search import tables as found
from whet.report.search.found import Search, searched
from whet.report.svg import element
from whet.report.table import Table
from whet.version import __version__

UNIT = re.compile(r"(?<=\d) (?=\D)")  # between a number and its unit, where no line may end
NAME = re.compile(r"([\w.:()-]*-[\w.:()-]+)")  # a level, a limit: words with a hyphen
CONTEXT = 72  # characters of context before a changed token


def html(e: Evidence) -> str:
    """Return the report as a page.

    Law: every text from a record is escaped; the page names no other address and runs nothing.
    """
    search = searched(e)
    look = _style() + (plot.highlights(search) if search else "")
    return (
        _environment()
        .get_template("page.html")
        .render(
            **_words(e),
            policy=_policy(look),
            style=Markup(look),  # our own file, not escaped
            tables=_tables(e),
            figures=_figures(e),
            tokens=_tokens(e),
            sections=_sections(e),
            search=_search(search) if search else None,
            version=__version__,
        )
    )


def _search(search: Search) -> Markup:
    """Return the part about the search."""
    page = _environment().get_template("search.html")
    makers = (found.limits, found.predictions, found.sensitive, found.megabytes, found.rejected)
    return Markup(  # rendered with escaping
        page.render(
            account=[_whole(told) for told in account.paragraphs(search)],
            by_size=plot.by_size(search),
            by_speed=plot.by_speed(search),
            grids=grids.allocation(search),
            refinement=grids.refinement(search.generations),
            placed=plot.placed(search),
            models_table=found.trials(search),
            frontier=found.points(search),
            first_point=len(found.considered(search)),
            **{make.__name__: make(search) for make in makers},
        )
    )


def _words(e: Evidence) -> dict[str, object]:
    """Return the texts of the page."""
    return {
        "title": summary.title(e),
        "recipe": summary.recipe_name(e),
        "sentences": summary.sentences(e),
        "headlines": summary.headlines(e),
        "against": note(e.quality, "against", "the original"),
        "command": summary.command(e),
        "measure_command": summary.measure_command(e),
        "recipe_text": note(e.last("recipe"), "yaml"),
        "spent": _spent(e),
    }


def _whole(paragraph: str) -> Markup:
    """Return a paragraph whose lines end neither within a name nor between a number and its unit."""
    parts = NAME.split(UNIT.sub("\u00a0", paragraph))  # every second part is a name
    return Markup("").join(
        element("span", part, class_="whole") if i % 2 else part for i, part in enumerate(parts)
    )


def _spent(e: Evidence) -> str:
    """Return the time and the memory of the run, in words."""
    time = f"{say.duration(e.total_time)} in all" if e.total_time else ""
    memory = f"at most {say.size(e.peak_memory)} of memory" if e.peak_memory else ""
    return ", ".join(part for part in (time, memory) if part)


def _tables(e: Evidence) -> Mapping[str, Table | None]:
    """Return the tables of the page."""
    damage = (tables.quality, tables.tasks, tables.worst, tables.tokens)
    taken = (resources.stages, resources.sizes, resources.speed, resources.drafts)
    made = (tables.schemes, tables.environment, tables.modules, tables.provenance)
    makers = (*damage, *taken, tables.fallbacks, tables.skipped, tables.unused, *made)
    return {make.__name__: make(e) for make in makers}


def _figures(e: Evidence) -> Mapping[str, Markup]:
    """Return the figures of the page."""
    return {
        "heat": figures.heat_map(e),
        "depth": figures.depth(e),
        "sizes": figures.size_bars(e),
        "kl": figures.kl_points(e),
        "time": figures.time_bars(e),
    }


def _tokens(e: Evidence) -> Sequence[tuple[str, ...]]:
    """Return the rows of the changed tokens, the context cut from the left."""
    table = tables.tokens(e)
    rows = table.rows if table else ()
    return [
        (row[0] if len(row[0]) <= CONTEXT else "…" + row[0][-CONTEXT:], *row[1:]) for row in rows
    ]


def _sections(e: Evidence) -> Sequence[tuple[str, str]]:
    """Return the sections that this page has: (anchor, heading)."""
    every = (
        ("quality", "Quality", True),
        ("search", "The search", e.last("search") is not None),
        ("damage", "Where the damage is", True),
        ("tokens", "Tokens", bool(e.changed_tokens)),
        ("size", "Size", True),
        ("speed", "Speed", bool(e.speeds)),
        ("exceptions", "Exceptions", True),
        ("time", "Time", bool(resources.phases(e))),
        ("made", "How it was made", True),
    )
    return [(anchor, label) for anchor, label, there in every if there]


def _policy(look: str) -> str:
    """Return a policy that allows our own style and nothing else."""
    digest = b64encode(sha256(look.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _style() -> str:
    """Return the page's style."""
    return style(_text("page.css"))


@cache
def _environment() -> Environment:
    """Return what reads the templates of this package; everything put into them is escaped."""
    return Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _text(name: str) -> str:
    """Return a file of this package."""
    return files("whet.report").joinpath(name).read_text(encoding="utf-8")
