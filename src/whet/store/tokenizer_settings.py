"""A `tokenizer_config.json` without the code that it names. Torch-free.

A tokenizer that lies as `tokenizer.json` needs no code: the tokenizers library reads all of it. So the
code of a folder is not run, and not named in what is written.
"""

from collections.abc import Mapping
from typing import Any, cast

SETTINGS = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
CODE = "auto_map"
GENERAL_CLASS = "PreTrainedTokenizerFast"  # of transformers: what any `tokenizer.json` loads as


def without_code(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without `auto_map`; a class that only the code has becomes the general one."""
    found = {key: value for key, value in settings.items() if key != CODE}
    if found.get("tokenizer_class") in _classes(settings.get(CODE)):
        found["tokenizer_class"] = GENERAL_CLASS
    return found


def _classes(value: object) -> frozenset[str]:
    """Return the names of the classes in an `auto_map`."""
    if isinstance(value, str):
        return frozenset({value.rpartition(".")[2]})
    if isinstance(value, Mapping):
        parts = list(cast("Mapping[str, object]", value).values())
    else:
        parts = cast("list[object]", value) if isinstance(value, list) else []
    return frozenset[str]().union(*(_classes(part) for part in parts))
