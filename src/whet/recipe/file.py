"""Recipes as YAML: every field is checked, every error names its step and the nearest valid word."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from whet.base.errors import MissingError, RecipeError
from whet.base.paths import local_path
from whet.formats.activation import Activation
from whet.formats.spec import Format
from whet.methods import catalogue
from whet.passes.model_pass import ModelPass
from whet.recipe.recipe import Allocation, Calibration, Recipe, Step
from whet.recipe.schema import recipe_model, step_fields, step_models

LONGEST = 1 << 18  # [byte]
DEEPEST, MOST_BRACKETS = 32, 2_000
PRESETS = Path(__file__).parent / "presets"
EXAMPLE = "`whet list recipes int4` prints one to start from."
FIELDS = "`whet schema` lists every field and what it may be."
SETTING = "Write --set step.field=value, e.g. --set gptq.format=int3-g64."


class _Loader(yaml.SafeLoader):
    """The safe loader, less aliases and repeated keys (the C one cannot be narrowed like this)."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        """Refuse aliases, which can blow up a small file."""
        if self.check_event(yaml.AliasEvent):
            raise RecipeError("a recipe may not use YAML aliases (*name)", "Write the value out.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401, FBT001, FBT002
        """Refuse a key that stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise RecipeError(f"line {line}: the key {key.value!r} stands twice", "Keep one.")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def preset_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with whet."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def preset_text(name: str) -> str:
    """Return the YAML of a preset."""
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def read(name_or_path: str, settings: Iterable[str] = ()) -> Recipe:
    """Read a preset by name or a recipe file by path, then apply `step.field=value` settings."""
    text = _text_of(name_or_path)
    try:
        return loads(text, settings)
    except RecipeError as error:
        raise RecipeError(f"{name_or_path}: {error.message}", error.hint) from error


def loads(text: str, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe. Law: `loads(dumps(r)) == r`."""
    data = _mapping(text)
    for setting in settings:
        _apply(data, setting)
    try:
        parsed: Any = recipe_model().model_validate(data)
    except ValidationError as error:
        raise _explained(error) from error
    return Recipe(
        name=parsed.name,
        description=parsed.description,
        steps=tuple(_step(step) for step in parsed.steps),
        calibration=Calibration(**parsed.calibration.model_dump()),
        skip=tuple(parsed.skip),
        precision=parsed.precision,
        seed=parsed.seed,
        draft=tuple(_step(step) for step in parsed.draft),
        allocation=_allocation(parsed.allocation),
    )


def dumps(recipe: Recipe) -> str:
    """Write a recipe in full: defaults are spelled out, since defaults may change."""
    data = {
        "name": recipe.name,
        "description": recipe.description,
        "steps": [_plain_step(step) for step in recipe.steps],
        "calibration": asdict(recipe.calibration),
        "skip": list(recipe.skip),
        "precision": recipe.precision,
        "seed": recipe.seed,
    }
    if recipe.allocation:
        asked, named = recipe.allocation, ("formats", "tables")
        data["allocation"] = asdict(asked) | {n: [str(f) for f in getattr(asked, n)] for n in named}
    if recipe.draft:
        data["draft"] = [_plain_step(step) for step in recipe.draft]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _text_of(name: str) -> str:
    if name in preset_names():
        return preset_text(name)
    path = local_path(name)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        raise RecipeError(f"unknown recipe {name!r}", _nearest(name, preset_names()))
    if not path.is_file():
        raise MissingError(
            f"no recipe file at {name}", "Give a .yaml file or the name of a preset."
        )
    if path.stat().st_size > LONGEST:
        size = path.stat().st_size
        raise RecipeError(f"{name} is {size} bytes; a recipe has at most {LONGEST}", EXAMPLE)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start})", EXAMPLE
        ) from error


def _mapping(text: str) -> dict[str, Any]:
    data = _parsed(text)
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise RecipeError(f"a recipe is a mapping with `name` and `steps`, not {found}", EXAMPLE)
    return cast("dict[str, Any]", data)


def _parsed(text: str) -> object:
    """Return what YAML says, or say where it goes wrong."""
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise _too_deep()
    try:
        data: object = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise RecipeError(f"{where}not valid YAML: {problem}", EXAMPLE) from error
    except ValueError as error:  # of a value that has a tag's form and not its meaning
        raise RecipeError(f"not valid YAML: {str(error)[:100]}", EXAMPLE) from error
    except RecursionError as error:
        raise _too_deep() from error
    if _depth(data) > DEEPEST:
        raise _too_deep()
    return data


def _too_deep() -> RecipeError:
    return RecipeError(f"the recipe nests deeper than {DEEPEST} levels", EXAMPLE)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(v) for v in cast("dict[Any, Any]", value).values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(v) for v in cast("list[Any]", value)), default=0)
    return 0


def _apply(data: dict[str, Any], setting: str) -> None:
    """Carry out one `step.field=value`; the step is a method's name or a number from 1."""
    path, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting!r}: expected step.field=value", SETTING)
    place, dot, name = path.strip().rpartition(".")
    try:
        value = _parsed(text) if text else ""
    except RecipeError as error:
        raise RecipeError(f"--set {setting!r}: {error.message}", SETTING) from error
    if not dot:
        data[name] = value
    elif place in ("calibration", "allocation"):
        given = data.get(place) or {}
        data[place] = given | {name: value} if isinstance(given, dict) else given
    else:
        for step in _steps_named(data, place, setting):
            step[name] = value


def _steps_named(data: dict[str, Any], place: str, setting: str) -> list[dict[str, Any]]:
    steps = [s for s in cast("list[Any]", data.get("steps") or []) if isinstance(s, dict)]
    numbered = place.isascii() and place.isdigit()
    if numbered:
        found = steps[int(place) - 1 : int(place)] if int(place) else []
    else:
        found = [s for s in steps if s.get("use") == place]
    if not found:
        names = ["calibration", "allocation", *(str(s.get("use")) for s in steps)]
        hint = f"Steps are numbered 1 to {len(steps)}." if numbered else _nearest(place, names)
        raise RecipeError(f"--set {setting!r}: the recipe has no step {place!r}", hint)
    return found


def _allocation(parsed: Any) -> Allocation | None:  # noqa: ANN401
    if parsed is None:
        return None
    formats, tables = tuple(parsed.formats), tuple(parsed.tables)
    return Allocation(parsed.bits, formats, tables, parsed.samples, parsed.length)


def _step(parsed: Any) -> Step:  # noqa: ANN401
    use = catalogue()[parsed.use]
    settings = {f.name: getattr(parsed, f.name) for f in step_fields(use)}
    try:
        made = cast("Any", use)(**settings)
        return Step(made) if issubclass(use, ModelPass) else Step(made, tuple(parsed.where))
    except ValueError as error:
        raise RecipeError(f"step {parsed.use!r}: {error}", FIELDS) from error


def _plain_step(step: Step) -> dict[str, Any]:
    settings = {f.name: _plain(getattr(step.use, f.name)) for f in step_fields(type(step.use))}
    where = {} if isinstance(step.use, ModelPass) else {"where": list(step.where)}
    return {"use": step.use.name, **where, **settings}


def _plain(value: object) -> object:
    if isinstance(value, Format | Activation):
        return str(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, tuple):
        return list(cast("tuple[Any, ...]", value))
    return value


def _explained(error: ValidationError) -> RecipeError:
    """Turn the first complaint of pydantic into one sentence that names the step and the field."""
    first = error.errors()[0]
    where = [part for part in first["loc"] if part not in step_models()]
    inner = where[1:] if where[0] == "steps" and len(where) > 1 else where
    of_step = where[0] in ("steps", "draft")
    place = ".".join(_counted(part, of_step=of_step) for part in inner)
    given = str(where[-1])
    if first["type"] == "extra_forbidden":
        return RecipeError(f"{place}: unknown field", _nearest(given, _known(first["loc"])))
    if first["type"] == "union_tag_invalid":
        tag = str(first.get("ctx", {}).get("tag", ""))
        return RecipeError(f"{place}: unknown method {tag!r}", _nearest(tag, catalogue()))
    if first["type"] == "union_tag_not_found":
        return RecipeError(
            f"{place}: a step needs `use`, the name of a method", _nearest("", catalogue())
        )
    if first["type"] == "missing":
        return RecipeError(f"{place}: missing", f"Add it; {FIELDS}")
    found = f" (found {first['input']!r})" if len(repr(first["input"])) < 60 else ""
    cause = getattr(first.get("ctx", {}).get("error"), "__cause__", None)
    hint = cause.hint if isinstance(cause, RecipeError) else ""
    return RecipeError(
        f"{place}: {first['msg'].removeprefix('Value error, ')}{found}", hint or FIELDS
    )


def _counted(part: int | str, *, of_step: bool) -> str:
    """Return a part of the place of a complaint; numbers count from 1."""
    if isinstance(part, str):
        return part
    return f"step {part + 1}" if of_step else f"{part + 1}"


def _known(loc: tuple[int | str, ...]) -> Iterable[str]:
    tag = next((part for part in loc if part in step_models()), None)
    if tag is not None:
        return step_models()[str(tag)].model_fields
    if loc[0] == "allocation":
        return Allocation.__dataclass_fields__
    if loc[0] == "calibration":
        return Calibration.__dataclass_fields__
    return recipe_model().model_fields


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(word, names, 1, 0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
