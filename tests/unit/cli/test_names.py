"""The same names and defaults on the command line, in the API and in recipes."""

import inspect

import click
import pytest
from click import Context

from whet import api
from whet.cli.main import whet
from whet.recipe.schema import recipe_model
from whet.runtime.engine import MAX_TOKENS
from whet.runtime.sample import Sampling

ONLY_CLI = {"style"}
ONLY_API = {"progress", "stopped"}


def options(verb):
    """The parameters of a verb: name -> default."""
    context = Context(whet)
    found = {}
    for parameter in whet.get_command(context, verb).params:
        default = parameter.get_default(context)
        if default is None or type(default).__name__ == "Sentinel":
            flag = isinstance(parameter, click.Option) and parameter.is_flag
            default = False if flag else () if parameter.multiple else None
        found[parameter.name] = default
    return {name: default for name, default in found.items() if name not in ONLY_CLI}


def arguments(function):
    """The parameters of a function: name -> default."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ONLY_API}


@pytest.mark.parametrize(
    ("verb", "functions", "only_here"),
    [
        ("compress", [api.compress, api.preview], {"dry_run"}),
        ("measure", [api.measure], set()),
        ("inspect", [api.inspect], {"graph"}),
        ("explain", [api.explain], {"offline", "follow_links"}),
        ("verify", [api.verify], {"offline", "follow_links"}),
        ("schema", [api.schema], {"offline", "follow_links"}),
        ("doctor", [api.doctor], {"offline", "follow_links"}),
    ],
)
def test_flags_are_arguments(verb, functions, only_here):
    here = options(verb)
    there = {
        name: default for function in functions for name, default in arguments(function).items()
    }
    assert here.keys() - there.keys() == only_here
    assert there.keys() <= here.keys()
    for name, default in there.items():
        if default is inspect.Parameter.empty:
            assert next(
                p for p in whet.get_command(Context(whet), verb).params if p.name == name
            ).required
        else:
            assert here[name] == default, name


def test_flags_of_compress_that_recipes_have_too():
    fields = recipe_model().model_fields
    assert {"calibration", "seed"} <= fields.keys() & options("compress").keys()


def test_flags_of_run_are_the_settings_of_sampling():
    here = options("run")
    sampling = arguments(Sampling)
    assert sampling.keys() <= here.keys()
    assert here["max_tokens"] == MAX_TOKENS
    assert here.keys() - sampling.keys() == {
        "folder",
        "prompt",
        "max_tokens",
        "draft",
        "no_draft",
        "stop",
        "system",
        "raw",
        "executor",
        "follow_links",
        "kernels",
        "cache",
        "inputs",
        "offline",
    }
