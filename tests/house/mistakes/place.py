"""A mistake somebody can make, and a place to make it in."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.writer import write_shard

SHORT = ("calibration.samples=4", "calibration.length=32")
PLAIN = "name: plain\nsteps:\n- use: rtn\n  format: int4-g64\n  range: minmax\n"
QUERY = "model.layers.0.self_attn.q_proj.weight"
SINGLE = "model.safetensors"


class Place:
    """A folder to work in, with a small model at hand."""

    def __init__(self, path: Path, base: Path, patch: pytest.MonkeyPatch, held: ExitStack) -> None:
        self.path, self.base, self.patch = path, base, patch
        self.hold = held.enter_context

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file; one that shares its bytes with the base model is replaced, not changed."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def model(self, name: str = "model", **changes: Any) -> Path:
        """A copy of the small model, with fields of its config changed."""
        path = self.path / name
        shutil.copytree(self.base, path, copy_function=os.link)
        if changes:
            config = json.loads((path / "config.json").read_text()) | changes
            self.write(f"{name}/config.json", json.dumps(config))
        return path

    def weights(self, change: Callable[[dict[str, Tensor]], None], **changes: Any) -> Path:
        """A copy of the small model with its tensors changed in place."""
        path = self.model(**changes)
        source = Checkpoint(Folder(self.base))
        tensors = {name: source.tensor(name).clone() for name in source.names()}
        change(tensors)
        (path / SINGLE).unlink()
        write_shard(path / SINGLE, tensors)
        return path

    def listing(self) -> Mapping[str, str]:
        """Every file and folder with what it holds."""
        return {str(path.relative_to(self.path)): _held(path) for path in self.path.rglob("*")}


def _held(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return str(path.lstat().st_mode)
    return sha256(path.read_bytes()).hexdigest()


Words = list[str]
Make = Callable[[Place], Words]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is done wrong, the exit code of that, and words that must be told."""

    name: str
    code: int
    told: tuple[str, ...]
    make: Make


MISTAKES: list[Mistake] = []


def mistake(code: int, *told: str) -> Callable[[Make], Make]:
    """Note a function that prepares a mistake and returns the words of the command."""

    def noted(make: Make) -> Make:
        MISTAKES.append(Mistake(make.__name__, code, told, make))
        return make

    return noted


def table(rows: list[tuple[str, int, Words, tuple[str, ...]]]) -> None:
    """Note mistakes that need nothing prepared but the model: name, code, words, what is told."""
    for name, code, words, told in rows:

        def make(place: Place, words: Words = words) -> Words:
            if "model" in words:
                place.model()
            return words

        MISTAKES.append(Mistake(name, code, told, make))


def compress(*more: str, source: str = "model", recipe: str = "plain.yaml") -> Words:
    """The words of a short run."""
    sets = [word for setting in SHORT for word in ("--set", setting)]
    return ["compress", source, "--recipe", recipe, *sets, "-o", "out", *more]
