"""What there is to choose from: recipes, methods, formats, families. Needs no torch."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable

LARGE = (4096, 4096)  # a matrix on which bits per weight are counted: (out, in)


@dataclass(frozen=True, slots=True)
class Entry:
    """A name, what it stands for in one sentence, and a few facts in words."""

    name: str
    summary: str
    facts: dict[str, str] = field(default_factory=dict[str, str])


def recipes() -> tuple[Entry, ...]:
    """Return the recipes that come with whet."""
    import yaml

    found: list[Entry] = []
    for name, text in _presets():
        data = yaml.safe_load(text)
        uses = " + ".join(
            f"{step['use']} {step.get('format', '')}".strip() for step in data["steps"]
        )
        if mixed := data.get("allocation"):
            uses += f", mixed at {mixed['bits']:g} bit"
        found.append(Entry(name, str(data.get("description", "")), {"steps": uses}))
    return tuple(found)


def recipe_text(name: str) -> str | None:
    """Return the YAML of a recipe that comes with whet, or None."""
    return dict(_presets()).get(name)


def _presets() -> Iterator[tuple[str, str]]:
    """Yield the presets by name: their YAML."""
    folder = files("whet.recipe").joinpath("presets")
    known = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    for name, file in sorted(known.items()):
        yield name, file.read_text(encoding="utf-8")


def methods() -> tuple[Entry, ...]:
    """Return the methods, read from their files and not run.

    Law: the names are those of `whet.methods.catalogue`.
    """
    folder = files("whet.methods")
    found: list[Entry] = []
    for part in (item for item in folder.iterdir() if item.is_dir()):
        for file in (item for item in part.iterdir() if item.name.endswith(".py")):
            found += _classes(file, part.name)
    return tuple(sorted(found, key=lambda entry: entry.name))


def _classes(file: Traversable, kind: str) -> Iterator[Entry]:
    """Yield the methods that a file defines: its classes that have a `name`."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and (name := _name(node)) is not None:
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            yield Entry(name, summary, {"kind": kind})


def _name(node: ast.ClassDef) -> str | None:
    """Return the value of a class's `name`, if it is a plain text."""
    for item in node.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id="name"), value=ast.Constant(value=str() as told)):
                return told
            case _:
                continue
    return None


def formats() -> tuple[Entry, ...]:
    """Return a number format of every kind, with its bits per weight in a large matrix."""
    from whet.formats.spec import EXAMPLES, SPARSE

    return tuple(format_entry(name) for name in (*EXAMPLES, *SPARSE))


def format_entry(name: str) -> Entry:
    """Return what a format stores for a large matrix."""
    from whet.formats.spec import parse

    wanted = parse(name)
    planes = wanted.planes(LARGE)
    bits = wanted.bits(LARGE) / (LARGE[0] * LARGE[1])
    stored = ", ".join(f"{plane} {p.dtype.lower()}" for plane, p in planes.items())
    return Entry(str(wanted), stored, {"bit per weight": f"{bits:.4g}"})


def families() -> tuple[Entry, ...]:
    """Return the model families that whet has blocks of its own for."""
    import importlib

    from whet.model.family import families as known

    return tuple(
        Entry(
            family.name,
            (importlib.import_module(family.read.__module__).__doc__ or "").partition("\n")[0],
            {"model_type": ", ".join(family.model_types)},
        )
        for family in known().values()
    )
