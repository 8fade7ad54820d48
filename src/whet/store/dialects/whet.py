"""Every format of whet, as its planes: `quant_method` "whet".

A module `m` is stored as tensors `m.weight_<plane>` (dots in a plane's name become underscores),
oriented (out, in) whatever the model does, and `m.input_scale` (`m.input_zero_point`) where its
input has a fixed scale.
`quantization_config` lists the modules of each scheme by name:

    {"quant_method": "whet", "version": 1, "ignore": ["lm_head"],
     "schemes": [{"format": "nf4-g64", "modules": ["model.layers.0.mlp.up_proj", …]}, …]}

An embedding and a head that share their storage are stored once, under the embedding.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whet.base.errors import FolderError, RecipeError
from whet.formats.spec import Format
from whet.store.array import Planar
from whet.store.dialects.dialect import (
    Dialect,
    Held,
    Input,
    Layout,
    Reader,
    input_layout,
    input_scale,
    input_tensors,
    plain_tensors,
)
from whet.store.dialects.plain import PLAIN
from whet.store.scheme import Place, Scheme

if TYPE_CHECKING:
    from torch import Tensor

    from whet.formats.weight import Weight

METHOD = "whet"
VERSION = 1


def plane_name(plane: str) -> str:
    """Return the local tensor name of a plane, e.g. `weight_codes`, `weight_0_scale`."""
    return f"weight_{plane.replace('.', '_')}"


def schemes_of(config: Mapping[str, Any], where: str) -> dict[str, Scheme]:
    """Return the scheme of each module that a `quantization_config` lists."""
    if config.get("version") != VERSION:
        raise FolderError(
            f"{where} has whet format version {config.get('version')!r}, expected {VERSION}",
            "update whet",
        )
    found: dict[str, Scheme] = {}
    for entry in _entries(config.get("schemes"), where):
        try:
            scheme = Scheme.of(entry)
        except (RecipeError, KeyError, AttributeError, TypeError) as error:
            raise _unreadable(where, f"a scheme cannot be read ({error})") from None
        for module in _names(entry.get("modules"), where):
            if module in found:
                raise _unreadable(where, f"{module} has two schemes")
            found[module] = scheme
    return found


def _entries(value: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise _unreadable(where, "schemes is not a list of objects")
    return value


def _names(value: object, where: str) -> Iterable[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _unreadable(where, "modules is not a list of names")
    return value


def _unreadable(where: str, fault: str) -> FolderError:
    return FolderError(f"{where}: quantization_config: {fault}", "restore config.json")


@dataclass(frozen=True, slots=True)
class WhetReader(Reader):
    """A folder of whet's own dialect."""

    schemes: Mapping[str, Scheme]
    held: Held

    def format(self, place: Place) -> Format | None:
        """Return the format of the module's scheme."""
        scheme = self.schemes.get(place.module)
        return None if scheme is None or scheme.is_plain else scheme.format

    def weight(self, place: Place) -> Planar | None:
        """Return the planes of a weight, each checked against its format."""
        format_ = self.format(place)
        return None if format_ is None else self.planes(place.module, format_, place.shape)

    def planes(self, module: str, format_: Format, shape: tuple[int, int]) -> Planar:
        """Return the weight of a module, whose format and shape are known."""
        planes = {
            name: self.held.checked(f"{module}.{plane_name(name)}", plane.dtype, plane.shape)
            for name, plane in format_.planes(shape).items()
        }
        return Planar(format_, planes, shape)

    def activation(self, place: Place) -> Input | None:
        """Return the activation of the module's scheme."""
        scheme = self.schemes.get(place.module)
        if scheme is None or scheme.activation is None:
            return None
        return scheme.activation, input_scale(scheme, place.module, self.held)


class Whet(Dialect):
    """Refuses nothing."""

    name = METHOD

    def refuses(self, place: Place, scheme: Scheme) -> str | None:
        """Return None."""
        return None

    def config(
        self,
        schemes: Mapping[str, Scheme],
        skipped: Collection[str],
        embedding: Place | None = None,
    ) -> dict[str, Any] | None:
        """Return schemes with their modules, in the order in which they come."""
        grouped: dict[Scheme, list[str]] = {}
        for module, scheme in schemes.items():
            if not scheme.is_plain:
                grouped.setdefault(scheme, []).append(module)
        plain = [module for module, scheme in schemes.items() if scheme.is_plain]
        return {
            "quant_method": METHOD,
            "version": VERSION,
            "schemes": [{**s.plain(), "modules": modules} for s, modules in grouped.items()],
            "ignore": sorted({*skipped, *plain}),
        }

    def layout(self, place: Place, scheme: Scheme) -> Layout:
        """Return the planes of the format, and the input's scale."""
        if scheme.is_plain:
            return PLAIN.layout(place, scheme)
        planes = scheme.format.planes(place.shape).items()
        found: Layout = {
            f"{place.module}.{plane_name(name)}": (plane.dtype, plane.shape)
            for name, plane in planes
        }
        inputs = input_layout(scheme).items()
        return found | {f"{place.module}.{name}": item for name, item in inputs}

    def tensors(
        self,
        place: Place,
        weight: "Weight",
        scheme: Scheme | None,
        scale: "Tensor | None" = None,
    ) -> "dict[str, Tensor]":
        """Return the planes as they are."""
        if scheme is None or scheme.is_plain:
            return plain_tensors(place, weight)
        found = {
            f"{place.module}.{plane_name(name)}": plane.contiguous()
            for name, plane in weight.planes.items()
        }
        inputs = input_tensors(scheme, scale).items()
        return found | {f"{place.module}.{name}": tensor for name, tensor in inputs}

    def reader(self, config: Mapping[str, Any], held: Held) -> WhetReader:
        """Understand a `quantization_config` of whet."""
        return WhetReader(schemes_of(config, held.where), held)


WHET = Whet()
