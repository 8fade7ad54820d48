"""The command line keeps its promises: verbs, flags and defaults change only on purpose.

`python -m tests.house.test_cli_frozen` writes the file anew.
"""

import json
from pathlib import Path

from click import Context

from whet.cli.lazy import VERBS
from whet.cli.main import whet

FROZEN = Path(__file__).with_name("cli.json")


def described(parameter):
    """A parameter in words that do not depend on click's version."""
    found = parameter.get_default(Context(whet))
    default = None if type(found).__name__ == "Sentinel" else found
    kind = type(parameter.type).__name__.removesuffix("ParameterType")
    choices = list(getattr(parameter.type, "choices", ()))
    return {
        "flags": [*parameter.opts, *parameter.secondary_opts],
        "required": parameter.required,
        "repeated": parameter.multiple,
        "kind": kind,
        "choices": choices,
        "default": default or None,
    }


def now():
    """The command line as it is."""
    context = Context(whet)
    return {
        verb: {p.name: described(p) for p in whet.get_command(context, verb).params}
        for verb in VERBS
    }


def test_the_command_line_is_as_promised():
    assert now() == json.loads(FROZEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(now(), indent=1) + "\n", encoding="utf-8")
