"""The shape of a recipe file, made from the methods' own fields: one source of names and defaults."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, cast, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, create_model
from pydantic import Field as Described
from pydantic.functional_serializers import PlainSerializer
from pydantic.json_schema import WithJsonSchema

from whet.base.errors import FormatError, RecipeError
from whet.formats.activation import Activation, parse_activation
from whet.formats.spec import Format, parse
from whet.methods import catalogue
from whet.passes.model_pass import ModelPass
from whet.recipe.recipe import Precision


class Strict(BaseModel):
    """A part of a recipe: unknown fields are errors, values are not converted between types."""

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, frozen=True, allow_inf_nan=False
    )


class CalibrationFile(Strict):
    """What the statistics are gathered on."""

    source: Annotated[
        str, Described(description="text file, .jsonl, folder, builtin or hf:dataset")
    ] = "builtin"
    samples: Annotated[int, Described(ge=1, le=1_000_000, description="windows [1]")] = 128
    length: Annotated[int, Described(ge=8, le=1_048_576, description="tokens a window [token]")] = (
        512
    )


@cache
def allocation_model() -> type[Strict]:
    """Return the model of a recipe's mixed precision."""
    format_ = _text(Format, parse, 'a number format, e.g. "int4-g64"')
    definitions: dict[str, Any] = {
        "bits": (
            float,
            Described(gt=0, le=32, description="with embedding and head [bit per weight]"),
        ),
        "formats": (
            list[format_],
            Described(min_length=1, max_length=64, description="what a linear may get"),
        ),
        "tables": (
            list[format_],
            Described([], max_length=64, description="what embedding and head may get"),
        ),
        "samples": (int, Described(8, ge=1, le=100_000, description="windows [1]")),
        "length": (int, Described(256, ge=8, le=1_048_576, description="of each [token]")),
    }
    doc = "Mixed precision: formats by sensitivity."
    return create_model("Allocation", __base__=Strict, __doc__=doc, **definitions)


@cache
def step_models() -> Mapping[str, type[Strict]]:
    """Return the model of a step, for each method's name."""
    return {name: _step_model(name, use) for name, use in catalogue().items()}


@cache
def recipe_model() -> type[Strict]:
    """Return the model of a whole recipe file."""
    union = cast("Any", Union)[tuple(step_models().values())]
    steps = Annotated[union, Described(discriminator="use")] if len(step_models()) > 1 else union
    definitions: dict[str, Any] = {
        "name": (str, Described(description="a short name", pattern=r"^[A-Za-z0-9._+-]{1,80}$")),
        "description": (str, Described("", description="what it is for")),
        "steps": (list[steps], Described(min_length=1, description="carried out in order")),
        "calibration": (CalibrationFile, Described(default_factory=CalibrationFile)),
        "skip": (list[str], Described([], description="patterns of modules left as they are")),
        "precision": (Precision, Described("auto", description="arithmetic of calibration")),
        "seed": (int, Described(0, ge=0, lt=2**63, description="of all that is drawn")),
        "allocation": (
            allocation_model() | None,
            Described(None, description="mixed precision: formats by sensitivity"),
        ),
        "draft": (list[steps], Described([], description="steps of a smaller model that guesses")),
    }
    return create_model("Recipe", __base__=Strict, **definitions)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of recipe files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema"
    } | recipe_model().model_json_schema()


def step_fields(use: type) -> tuple[Field[Any], ...]:
    """Return the settings of a method."""
    assert is_dataclass(use)
    return tuple(f for f in fields(use) if f.init)


def _step_model(name: str, use: type) -> type[Strict]:
    hints = get_type_hints(use)
    definitions: dict[str, Any] = {"use": (Literal[name], Described(description=_summary(use)))}
    if not issubclass(use, ModelPass):
        definitions["where"] = (
            Annotated[list[str], BeforeValidator(_listed)],
            Described(["blocks"], description="patterns of sites, or blocks, embed, head"),
        )
    for setting in step_fields(use):
        definitions[setting.name] = (_annotation(hints[setting.name]), _default(setting))
    return create_model(f"{name}_step", __base__=Strict, __doc__=_summary(use), **definitions)


def _summary(use: type) -> str:
    return (use.__doc__ or "").strip().split("\n")[0]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _annotation(hint: Any) -> Any:  # noqa: ANN401
    if isinstance(hint, type) and issubclass(hint, Format):
        return _text(hint, parse, 'a number format, e.g. "int4-g64"')
    if hint is Activation:
        return _text(hint, parse_activation, 'an activation format, e.g. "int8-token"')
    return hint if get_origin(hint) is not type else str


def _text(kind: type, read: Callable[[str], object], description: str) -> Any:  # noqa: ANN401
    def value(text: object) -> object:
        if isinstance(text, kind):
            return text
        if not isinstance(text, str):
            raise ValueError(f"expected {description}")  # noqa: TRY004 - pydantic asks for it
        try:
            return read(text)
        except (FormatError, RecipeError) as error:
            raise ValueError(error.message) from error

    return Annotated[
        kind,
        BeforeValidator(value),
        PlainSerializer(str),
        WithJsonSchema({"type": "string", "description": description}),
    ]


def _default(setting: Field[Any]) -> Any:  # noqa: ANN401
    description = setting.metadata.get("doc")
    if setting.default_factory is not MISSING:
        return Described(default_factory=setting.default_factory, description=description)
    if setting.default is MISSING:
        return Described(description=description)
    return Described(setting.default, description=description)
