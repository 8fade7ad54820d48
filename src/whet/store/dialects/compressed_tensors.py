"""compressed-tensors, which transformers, vLLM and SGLang read: integers, fp8, MXFP4 and NVFP4.

Refused, because its readers do not follow: GPT-2's transposed layers, embeddings in anything but
symmetric 8-bit integers, ragged groups, zero points and quantized inputs of experts (transformers
decodes experts into one tensor as it loads). W8A8 is `int-quantized`; narrower integers stay packed
even when their inputs are quantized. An embedding is `int-quantized` too, since transformers expects
of it a tensor named `weight`; a head tied to it shares that tensor and has a copy of the scales.
Inputs in int16 are named in a key of whet's beside the groups; other readers multiply those weights
by inputs in 16 bits too.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from whet.base.errors import FolderError, RecipeError, UnsupportedError
from whet.formats.activation import Activation, parse_activation
from whet.formats.spec import Coded, Float, Plane
from whet.store.array import Array, Planar
from whet.store.dialects.ct_groups import EXPERTS, aliased, group, is_table, table_group, targets
from whet.store.dialects.ct_planes import from_int8, from_words, turned
from whet.store.dialects.ct_words import (
    FLOAT8,
    INT8,
    MXFP4,
    NVFP4,
    PACKED,
    Words,
    activation_of,
    format_of,
    told_apart,
    words,
)
from whet.store.dialects.dialect import (
    Dialect,
    Held,
    Input,
    Layout,
    Reader,
    expect_shape,
    input_layout,
    input_tensors,
    joined,
    plain_tensors,
)
from whet.store.dialects.plain import PLAIN
from whet.store.scheme import Place, Scheme

if TYPE_CHECKING:
    from torch import Tensor

    from whet.formats.weight import Weight

METHOD = "compressed-tensors"
SCALE = "weight_scale"
INPUTS = "whet_inputs"  # modules by the format of their inputs, where groups have no words for it


class CompressedTensors(Dialect):
    """A config group for each scheme; one scheme for all is targeted as `Linear`."""

    name = METHOD

    def refuses(self, place: Place, scheme: Scheme) -> str | None:
        """Return why a module cannot be written so."""
        if scheme.is_plain:
            return None
        if place.transposed:
            return f"{place.module} is stored transposed, which its readers do not decode"
        if place.role == "embed" and not is_table(scheme):
            return (
                f"{place.module} is an embedding, of which its readers decode 8-bit integers alone"
            )
        described = words(scheme.format, scheme.activation, place.shape)
        if isinstance(described, str):
            return f"{place.module}: {described}"
        affine = isinstance(scheme.format, Coded) and scheme.format.affine
        if EXPERTS in place.role and (described.inputs or affine):
            return f"{place.module}: its readers know experts by weight and scale alone"
        return None

    def config(
        self,
        schemes: Mapping[str, Scheme],
        skipped: Collection[str],
        embedding: Place | None = None,
    ) -> dict[str, Any] | None:
        """Return config groups that name every compressed module."""
        table = [] if embedding is None or schemes.get(embedding.module) is None else [embedding]
        named = {place.module for place in table}
        grouped: dict[Scheme, list[str]] = {}
        for module, scheme in schemes.items():
            if not scheme.is_plain and module not in named:
                grouped.setdefault(scheme, []).append(module)
        plain = [module for module, scheme in schemes.items() if scheme.is_plain]
        tables = [table_group(place, schemes[place.module]) for place in table]
        everywhere = len(grouped) == 1 and not any(place.head for place in table)
        parts = tables + [
            group(scheme, ["Linear"] if everywhere else targets(modules))
            for scheme, modules in grouped.items()
        ]
        groups = {f"group_{number}": group for number, group in enumerate(parts)}
        formats = {group["format"] for group in groups.values()}
        apart = _apart(grouped)
        heads = {place.head for place in table}
        return {
            "quant_method": METHOD,
            "format": formats.pop() if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": sorted(aliased([m for m in (*skipped, *plain) if m not in heads])),
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        } | ({INPUTS: apart} if apart else {})

    def layout(self, place: Place, scheme: Scheme) -> Layout:
        """Return the tensors of a module, without their data."""
        if scheme.is_plain:
            return PLAIN.layout(place, scheme)
        described, format_ = _described(place, scheme)
        planes = format_.planes(place.shape)
        local = dict(_layout(described, format_, planes, place.shape)) | input_layout(scheme)
        shared = {f"{place.head}.{SCALE}": local[SCALE]} if place.head else {}
        return {f"{place.module}.{name}": item for name, item in local.items()} | shared

    def tensors(
        self,
        place: Place,
        weight: "Weight",
        scheme: Scheme | None,
        scale: "Tensor | None" = None,
    ) -> "dict[str, Tensor]":
        """Return the tensors of a module."""
        from whet.store.dialects.ct_tensors import written

        if scheme is None or scheme.is_plain:
            return plain_tensors(place, weight)
        described, format_ = _described(place, scheme)
        local = written(described, format_, weight) | input_tensors(scheme, scale)
        shared = {f"{place.head}.{SCALE}": local[SCALE].clone()} if place.head else {}
        return {f"{place.module}.{name}": tensor for name, tensor in local.items()} | shared

    def reader(self, config: Mapping[str, Any], held: Held) -> Reader:
        """Understand a `quantization_config` of compressed-tensors, also one by others."""
        return CompressedReader.of(config, held)


def _apart(grouped: Mapping[Scheme, Collection[str]]) -> dict[str, list[str]]:
    """Return the modules whose inputs groups have no words for, by their format."""
    found: dict[str, list[str]] = {}
    for scheme, modules in grouped.items():
        if scheme.activation is not None and told_apart(scheme.activation):
            found.setdefault(str(scheme.activation), []).extend(modules)
    return {name: sorted(modules) for name, modules in found.items()}


def _read_apart(config: Mapping[str, Any], where: str) -> dict[str, Activation]:
    """Return what `_apart` wrote, by module."""
    fault = FolderError(f"{where}: {INPUTS} of quantization_config cannot be read", "restore it")
    held = config.get(INPUTS) or {}
    if not isinstance(held, dict):
        raise fault
    found: dict[str, Activation] = {}
    for name, modules in held.items():
        if not isinstance(modules, list):
            raise fault
        try:
            found |= dict.fromkeys(map(str, modules), parse_activation(name))
        except RecipeError as error:
            raise fault from error
    return found


def _described(place: Place, scheme: Scheme) -> tuple[Words, Coded]:
    described = words(scheme.format, scheme.activation, place.shape)
    if isinstance(described, str) or not isinstance(scheme.format, Coded):
        raise UnsupportedError(f"{place.module}: {described}", "this is a fault in whet")
    if place.role == "embed":
        described = replace(described, format=INT8)
    return described, scheme.format


def _layout(
    described: Words, format_: Coded, planes: Mapping[str, Plane], shape: tuple[int, int]
) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Yield the local names, dtypes and shapes of a module's tensors."""
    rows, cols = shape
    bits, scale = format_.element.bits, planes["scale"]
    one = format_.grouping == "tensor"
    yield "weight_scale", (scale.dtype, (1,) if one else scale.shape)
    if described.format == PACKED:
        yield "weight_packed", ("I32", (rows, _words(cols, bits)))
        yield "weight_shape", ("I64", (2,))
        if format_.affine:
            yield "weight_zero_point", ("I32", (_words(rows, bits), scale.shape[1]))
    elif described.format == INT8:
        yield "weight", ("I8", (rows, cols))
        if format_.affine:
            yield "weight_zero_point", ("I8", scale.shape)
    elif described.format == FLOAT8:
        yield "weight", ("F8_E4M3", (rows, cols))
    else:
        yield "weight_packed", ("U8", planes["codes"].shape)
        if described.format == NVFP4:
            yield "weight_global_scale", ("F32", (1,))


def _words(count: int, bits: int) -> int:
    return -(-count * bits // 32)


@dataclass(frozen=True, slots=True)
class _Read:
    """One config group."""

    targets: tuple[str, ...]
    weights: Mapping[str, Any] | None
    inputs: Mapping[str, Any] | None
    format: str


@dataclass(frozen=True, slots=True)
class CompressedReader(Reader):
    """A folder of compressed-tensors."""

    groups: tuple[_Read, ...]
    ignore: tuple[str, ...]
    inputs: Mapping[str, Activation]  # of modules, where groups have no words for them
    held: Held

    @staticmethod
    def of(config: Mapping[str, Any], held: Held) -> "CompressedReader":
        """Read a `quantization_config`, refusing what whet would misread."""
        where = held.where
        for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
            if config.get(key) and not _is_dense(config[key]):
                raise UnsupportedError(
                    f"{where}: quantization_config has a {key}, which whet cannot read",
                    "give the original model",
                )
        groups, ignore = config.get("config_groups"), config.get("ignore") or []
        if not isinstance(groups, dict) or not isinstance(ignore, list):
            raise FolderError(f"{where}: quantization_config has no config_groups", "restore it")
        read = tuple(_read_group(group, config.get("format"), where) for group in groups.values())
        apart = _read_apart(config, where)
        return CompressedReader(read, tuple(map(str, ignore)), apart, held)

    def format(self, place: Place) -> Coded | None:
        """Return the format that a config group and the scale's type tell."""
        name, group = f"{place.module}.weight_scale", self._group(place.module)
        if group is None or group.weights is None or name not in self.held.names:
            return None
        return format_of(group.weights, self.held.raw(name).dtype, self.held.where)

    def weight(self, place: Place) -> Planar | None:
        """Return a compressed weight with whet's planes."""
        module, held = place.module, self.held
        name = f"{module}.weight_scale"
        format_, group = self.format(place), self._group(module)
        if format_ is None or group is None:
            return None
        scale = held.raw(name)
        planes = format_.planes(place.shape)
        found = dict(_codes(group, format_, place, held))
        found["scale"] = _scale(scale, planes["scale"].shape, name, held.where)
        if "zero" in planes:
            found["zero"] = _zero(group, format_, place, held)
        if "global" in planes:
            whole = held.checked(f"{module}.weight_global_scale", "F32", (1,))
            found["global"] = Array("F32", np.reciprocal(whole.data))
        for plane, item in planes.items():
            if plane not in found or found[plane].shape != item.shape:
                raise FolderError(f"{held.where}: {module} has no {plane} of {item.shape}", "check")
        return Planar(format_, found, place.shape)

    def activation(self, place: Place) -> Input | None:
        """Return how the input is quantized."""
        if place.module in self.inputs:
            return self.inputs[place.module], None
        group = self._group(place.module)
        if group is None or group.inputs is None:
            return None
        found = activation_of(group.inputs, self.held.where)
        return found, self._fixed(Scheme(Float(), found), place.module)

    def _fixed(self, scheme: Scheme, module: str) -> Array | None:
        """Return the fixed scale of an input, and its zero point, as any float type."""
        parts: list[Array] = []
        for name in input_layout(scheme):
            if f"{module}.{name}" not in self.held.names:
                where = f"{self.held.where}: {module}"
                raise FolderError(f"{where} has no {name}", "the folder is incomplete")
            part = self.held.raw(f"{module}.{name}").float32().reshape(-1)
            expect_shape(f"{self.held.where}: {module}.{name}", part.shape, (1,))
            parts.append(Array("F32", part))
        return joined(parts)

    def _group(self, module: str) -> _Read | None:
        """Return the config group of a module: by its name or a pattern, else by its class."""
        if any(_matches(module, target) for target in self.ignore):
            return None
        named = [g for g in self.groups if any(_matches(module, t) for t in g.targets)]
        of_class = [g for g in self.groups if "Linear" in g.targets]
        return next(iter([*named, *of_class]), None)


def _is_dense(setting: object) -> bool:
    """Return whether a sparsity setting says that nothing is sparse."""
    return isinstance(setting, dict) and setting.get("format") == "dense"


def _read_group(group: Any, format_: object, where: str) -> _Read:  # noqa: ANN401 (from JSON)
    fault = FolderError(f"{where}: a config group cannot be read", "restore config.json")
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        raise fault
    weights, inputs = group.get("weights"), group.get("input_activations")
    if not all(part is None or isinstance(part, dict) for part in (weights, inputs)):
        raise fault
    if group.get("output_activations"):
        raise UnsupportedError(f"{where}: outputs are quantized, which whet cannot read")
    kind = group.get("format") or format_
    if kind not in (PACKED, INT8, FLOAT8, "naive-quantized", MXFP4, NVFP4):
        raise UnsupportedError(f"{where}: the format {kind!r} of compressed-tensors is not known")
    return _Read(tuple(map(str, group["targets"])), weights, inputs, str(kind))


def _matches(module: str, target: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target == module


def _codes(group: _Read, format_: Coded, place: Place, held: Held) -> Iterator[tuple[str, Array]]:
    """Yield the plane of codes."""
    module, (rows, cols), bits = place.module, place.shape, format_.element.bits
    packed = f"{module}.weight_packed"
    if group.format == PACKED:
        stored = held.checked(packed, "I32", (rows, _words(cols, bits)))
        yield "codes", from_words(stored, bits, cols)
    elif group.format in (MXFP4, NVFP4):
        yield "codes", held.checked(packed, "U8", (rows, cols // 2))
    elif group.weights and group.weights.get("type") == "float":
        stored = held.checked(f"{module}.weight", "F8_E4M3", (rows, cols))
        yield "codes", Array("U8", stored.data)
    else:
        yield "codes", from_int8(held.checked(f"{module}.weight", "I8", (rows, cols)), bits)


def _scale(scale: Array, shape: tuple[int, ...], name: str, where: str) -> Array:
    if scale.data.size != prod(shape):
        raise FolderError(
            f"{where}: {name} has shape {scale.shape}, expected {shape}",
            "config.json and the weights do not belong together",
        )
    return Array(scale.dtype, scale.data.reshape(shape))


def _zero(group: _Read, format_: Coded, place: Place, held: Held) -> Array:
    """Return the plane of zero points, packed along the outputs."""
    name, bits = f"{place.module}.weight_zero_point", format_.element.bits
    rows, groups = place.shape[0], format_.groups(place.shape[1])
    if group.format == PACKED:
        stored = held.checked(name, "I32", (_words(rows, bits), groups))
        return turned(from_words(turned(stored), bits, rows))
    return turned(from_int8(turned(held.checked(name, "I8", (rows, groups))), bits))


COMPRESSED_TENSORS = CompressedTensors()
