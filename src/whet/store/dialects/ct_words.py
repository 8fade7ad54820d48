"""The words of compressed-tensors for number formats, both ways. Torch-free.

Weights and inputs are described by QuantizationArgs (`num_bits`, `type`, `strategy` …); `format`
names the layout of a module's tensors. Read from compressed-tensors 0.20,
`quantization/quant_args.py` and `compressors/format.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whet.base.errors import RecipeError, UnsupportedError
from whet.formats.activation import Activation, Element
from whet.formats.element import Integer, Minifloat
from whet.formats.spec import Coded, Format, ScaleType, Shape, parse

PACKED, INT8, FLOAT8 = "pack-quantized", "int-quantized", "float-quantized"
MXFP4, NVFP4 = "mxfp4-pack-quantized", "nvfp4-pack-quantized"
FLOAT_SCALES: tuple[ScaleType, ...] = ("bf16", "f16", "f32")
E4M3 = Minifloat(4, 3)


@dataclass(frozen=True, slots=True)
class Words:
    """How compressed-tensors describes a scheme; `inputs` are None where they keep 16 bits."""

    format: str
    weights: Mapping[str, Any]
    inputs: Mapping[str, Any] | None


def words(format_: Format, activation: Activation | None, shape: Shape) -> Words | str:
    """Return the description of a scheme for a matrix, or why there is none."""
    inputs = None
    if activation is not None and not told_apart(activation):
        inputs = _inputs(activation)
        if inputs is None:
            return f"inputs in {activation} have no counterpart there"
    if not isinstance(format_, Coded):
        return f"{format_} has no counterpart there"
    if isinstance(format_.grouping, int) and shape[1] % format_.grouping:
        return f"{shape[1]} inputs do not divide by the group of {format_}"
    if str(format_) in _FP4:
        return f"{format_} with quantized inputs" if inputs else _FP4[str(format_)]
    if format_.scale not in FLOAT_SCALES or format_.minimum:
        return f"{format_} has no counterpart there"
    return _coded(format_, inputs) or f"{format_} has no counterpart there"


def told_apart(activation: Activation) -> bool:
    """Return whether a key of whet's names an input, which other readers keep in 16 bits as it is."""
    return activation.element == "int16"


def _coded(format_: Coded, inputs: Mapping[str, Any] | None) -> Words | None:
    """Return the description of integers and of fp8."""
    element, grouping = format_.element, format_.grouping
    weights: dict[str, Any] = {
        "num_bits": element.bits,
        "type": "int" if isinstance(element, Integer) else "float",
        "symmetric": not format_.affine,
        "strategy": "group" if isinstance(grouping, int) else grouping,
        "group_size": grouping if isinstance(grouping, int) else None,
        "dynamic": False,
    }
    if element == E4M3 and grouping in ("channel", "tensor"):
        return Words(FLOAT8, weights, inputs)
    if not isinstance(element, Integer) or (format_.affine and grouping == "tensor"):
        return None
    return Words(INT8 if inputs and element.bits == 8 else PACKED, weights, inputs)


_FP4_WEIGHTS = {"num_bits": 4, "type": "float", "symmetric": True, "dynamic": False}
_FP4 = {
    "mxfp4": Words(
        MXFP4,
        _FP4_WEIGHTS | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"},
        None,
    ),
    "nvfp4": Words(
        NVFP4,
        _FP4_WEIGHTS
        | {"strategy": "tensor_group", "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"},
        None,
    ),
}


def _inputs(activation: Activation) -> dict[str, Any] | None:
    """Return the description of an input, or None if there is none."""
    if activation.strategy == "group":
        return None
    kind, bits = next(words for words, name in _ELEMENTS.items() if name == activation.element)
    return {
        "num_bits": bits,
        "type": kind,
        "symmetric": not activation.affine,
        "strategy": activation.strategy,
        "group_size": None,
        "dynamic": not activation.static,
    }


def format_of(weights: Mapping[str, Any], scale: str, where: str) -> Coded:
    """Return the format that QuantizationArgs describe, whose scale has a dtype of safetensors."""
    bits, strategy = weights.get("num_bits"), weights.get("strategy")
    if strategy is None:
        group = weights.get("group_size")
        strategy = {None: "tensor", -1: "channel"}.get(group, "group")
    grouping = f"g{weights.get('group_size')}" if "group" in strategy else strategy
    if weights.get("type", "int") == "int":
        element = f"int{bits}"
    else:
        element = {8: "fp8-e4m3", 4: "fp4"}.get(bits or 0, f"fp{bits}")
    affine = "" if weights.get("symmetric", True) else "-affine"
    suffix = {"BF16": "", "F16": "-f16", "F32": "-f32", "U8": "-e8m0", "F8_E4M3": "-e4m3"}
    name = f"{element}-{grouping}{affine}{suffix.get(scale, '-' + scale)}"
    return _known(name, where)


def _known(name: str, where: str) -> Coded:
    try:
        found = parse(name)
    except RecipeError:
        found = None
    if not isinstance(found, Coded):
        raise UnsupportedError(
            f"{where}: quantization_config describes {name}, which whet cannot read",
            "give the original model, or one in another format",
        )
    return found


_ELEMENTS: Mapping[tuple[str, int], Element] = {
    ("int", 4): "int4",
    ("int", 8): "int8",
    ("float", 8): "fp8-e4m3",
}


def activation_of(inputs: Mapping[str, Any], where: str) -> Activation:
    """Return the activation that QuantizationArgs describe."""
    element = _ELEMENTS.get((inputs.get("type", "int"), inputs.get("num_bits", 8)))
    strategy = inputs.get("strategy") or "tensor"
    affine = not inputs.get("symmetric", True)
    dynamic = inputs.get("dynamic", False)
    known = strategy in ("token", "tensor") and isinstance(dynamic, bool)
    if element is None or not known or (strategy == "token" and not dynamic):
        raise UnsupportedError(
            f"{where}: quantization_config describes inputs that whet cannot read: {dict(inputs)}",
            "give the original model, or one in another format",
        )
    return Activation(element=element, strategy=strategy, affine=affine, static=not dynamic)
