"""What a compressed model takes over from the card of its source. Torch-free."""

import re
from pathlib import Path
from typing import Any, cast

import yaml

INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")
NAME = "model_name"
LONGEST = 1 << 16  # of the front matter [character]


def source_name(folder: Path) -> str:
    """Return a model's hub id, if it lies in the hub's cache, or its folder's name."""
    repository = folder.absolute().parent.parent.name
    if folder.absolute().parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1)
    return folder.absolute().name


def source_card(folder: Path) -> dict[str, str]:
    """Return the words of a folder's README.md that its descendants keep; {} if there are none."""
    path = folder / "README.md"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", errors="replace") as file:
        return inherited(file.read(LONGEST))


def inherited(readme: str) -> dict[str, str]:
    """Return what the front matter of a card says; {} if it says nothing that can be read."""
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", readme[:LONGEST], re.DOTALL)
    if not found or re.search(r"(^|[\s,\[{:])[&*]\w", found[1]):  # anchors could blow it up
        return {}
    try:
        front: Any = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    fields = cast("dict[Any, Any]", front) if isinstance(front, dict) else {}
    pairs = ((name, _words(fields.get(name))) for name in INHERITED)
    named = {"name": name} if (name := _words(fields.get(NAME))) else {}
    return named | {name: words for name, words in pairs if words}


def _words(value: object) -> str:
    """Return a value of the front matter as words: a list of words with commas."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in cast("list[object]", value) if isinstance(item, str))
    return value if isinstance(value, str) else ""
