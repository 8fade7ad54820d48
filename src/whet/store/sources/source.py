"""What a quantized source is made of: weights that several stored tensors hold. Torch-free."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import Format
from whet.store.array import Array
from whet.store.dialects.dialect import Held

Numbers = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Config = Mapping[str, Any]
SCALE_SUFFIX: Mapping[str, str] = {"BF16": "", "F16": "-f16", "F32": "-f32"}


@dataclass(frozen=True, slots=True)
class Quantized(ABC):
    """One weight of plain numbers that a source stores as codes.

    `name` and `shape` are those of the plain tensor; `uses` are the stored tensors that it is made
    of, all of which it replaces.
    Law: `dense` is what `format` decodes its planes to, where there is a format.
    """

    held: Held
    name: str
    uses: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def module(self) -> str:
        """Return the name of the module that has the weight."""
        return self.name.removesuffix(".weight")

    def format(self) -> Format | None:
        """Return the format of whet that holds the same values in as many codes, or None."""
        return None

    def plane(self, name: str) -> NDArray[Any]:
        """Return one plane of `format`."""
        raise AssertionError(f"{self.name} has no planes, asked for {name}")

    @abstractmethod
    def dense(self) -> Numbers:
        """Return the exact values, computed in float32."""


class SourceDialect(ABC):
    """A way in which other programs store quantized models, as far as whet reads it."""

    name: str
    runs = True  # whether running by planes is this reader's task too

    @abstractmethod
    def describe(self, config: Config) -> str:
        """Return what a `quantization_config` says in a few words, e.g. `GPTQ int4-g128`."""

    @abstractmethod
    def weights(self, config: Config, held: Held) -> Iterator[Quantized]:
        """Yield the quantized weights of a folder; raise where one cannot be read exactly."""


def array(held: Held, name: str, *dtypes: str) -> Array:
    """Return a tensor, or raise FolderError if it is missing or of another type."""
    if name not in held.names:
        raise FolderError(f"{held.where} has no tensor {name}", "the folder is incomplete")
    found = held.raw(name)
    if dtypes and found.dtype not in dtypes:
        raise FolderError(
            f"{held.where}: {name} is {found.dtype}, expected {' or '.join(dtypes)}",
            "config.json and the weights do not belong together",
        )
    return found


def expect(held: Held, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise FolderError unless a tensor has the shape that the others call for."""
    if found != wanted:
        raise FolderError(
            f"{held.where}: {name} has shape {list(found)}, expected {list(wanted)}",
            "config.json and the weights do not belong together",
        )


def unreadable(held: Held, fault: str) -> UnsupportedError:
    """Return the error for a source that is stored in a way that whet does not read."""
    return UnsupportedError(f"{held.where}: {fault}", "give the original model")


def modules(held: Held, suffix: str) -> list[str]:
    """Return the modules that have a tensor of this local name, in the order of the folder."""
    return [name.removesuffix(suffix) for name in held.names if name.endswith(suffix)]


def present(held: Held, module: str, *locals_: str) -> tuple[str, ...]:
    """Return those of a module's tensors that the folder has."""
    return tuple(name for part in locals_ if (name := f"{module}.{part}") in held.names)


def number(config: Config, key: str, default: int, where: str) -> int:
    """Return a whole number of a configuration."""
    value = config.get(key, default)
    if type(value) is not int:
        raise FolderError(
            f"{where}: quantization_config has {key} = {value!r}, expected a whole number",
            "restore config.json",
        )
    return value
