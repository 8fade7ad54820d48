"""transformers loads folders of `quant_method` "whet" through this quantizer.

Imported by `hook` when transformers is; not part of the API.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, apply_renamings
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from whet.base.errors import FolderError
from whet.store.compressed_module import CompressedEmbedding, compress_module, tie_module
from whet.store.dialects.whet import METHOD, VERSION, schemes_of
from whet.store.experts import NAMES, Experts, apart, is_joined
from whet.store.scheme import Scheme

_EXPERT = re.compile(r"(?P<block>.*\.experts)\.\d+\.(?P<name>\w+)")


class WhetConfig(QuantizationConfigMixin):
    """What config.json says under `quantization_config`."""

    def __init__(
        self,
        schemes: Sequence[Mapping[str, Any]] = (),
        version: int = VERSION,
        ignore: Sequence[str] = (),
        **others: Any,  # noqa: ANN401 (transformers passes what it finds)
    ) -> None:
        self.quant_method = METHOD  # pyright: ignore[reportAttributeAccessIssue] (an enum of its own methods)
        self.schemes = list(schemes)
        self.version = version
        self.ignore = list(ignore)


class WhetQuantizer(HfQuantizer):
    """Gives the named modules planes instead of weights before the checkpoint is loaded."""

    requires_calibration = True
    quantization_config: WhetConfig

    def is_serializable(self) -> Any:  # noqa: ANN401 (declared without a type there)
        """Return True: planes are buffers, saved under the names they were loaded from."""
        return True

    @property
    def is_trainable(self) -> Any:  # noqa: ANN401 (declared without a type there)
        """Whether weights can be trained: codes have no gradient."""
        return False

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        schemes = schemes_of(self.quantization_config.to_dict(), "quantization_config")
        places = Places(model)
        named = {places.path(module): scheme for module, scheme in schemes.items()}
        _separate_experts(model, named)
        for path, scheme in named.items():
            compress_module(_found(model, path), scheme)
        _tie(model)
        return model

    def update_weight_conversions(self, weight_conversions: Any, model: Any) -> Any:  # noqa: ANN401
        """Leave experts apart where they have been separated."""
        if any(isinstance(module, Experts) for module in model.modules()):
            weight_conversions = [c for c in weight_conversions if not _joins_experts(c)]
        return super().update_weight_conversions(weight_conversions, model)


class Places:
    """The modules of a model by the names that checkpoints have for them."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model
        self._renamings = [
            entry
            for entry in get_model_conversion_mapping(model)
            if isinstance(entry, WeightRenaming)
        ]

    def path(self, module: str) -> str:
        """Return the path in the model of a checkpoint's module."""
        name = apply_renamings(f"{module}.weight", self._renamings).removesuffix(".weight")
        prefix = f"{self._model.base_model_prefix}."
        expert = _EXPERT.fullmatch(name)
        there = expert["block"] if expert else name  # experts are still joined
        for candidate in (there, prefix + there, there.removeprefix(prefix)):
            if _exists(self._model, candidate):
                return candidate + name.removeprefix(there)
        raise FolderError(f"quantization_config names {module}, which this model does not have")


def _exists(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _found(model: nn.Module, path: str) -> nn.Module:
    module = model.get_submodule(path)
    if getattr(module, "weight", None) is None:
        raise FolderError(f"quantization_config names {path}, which has no weight")
    return module


def _separate_experts(model: nn.Module, named: Mapping[str, Scheme]) -> None:
    """Replace the joined experts of every block if any expert is compressed."""
    used = {found["name"] for path in named if (found := _EXPERT.fullmatch(path))}
    names = next((triple for triple in NAMES if used & set(triple)), None)
    if names is None:
        return
    for path, module in list(model.named_modules()):
        if is_joined(module):
            model.set_submodule(path, apart(module, names))


def _joins_experts(conversion: object) -> bool:
    return isinstance(conversion, WeightConverter) and any(
        target.endswith(("experts.gate_up_proj", "experts.down_proj"))
        for target in conversion.target_patterns
    )


def _tie(model: Any) -> None:  # noqa: ANN401
    """Let heads tied to a compressed embedding use its table, and transformers leave both alone."""
    tied: dict[str, str] = dict(model.all_tied_weights_keys)
    for target, source in list(tied.items()):
        head, table = (model.get_submodule(name.rpartition(".")[0]) for name in (target, source))
        if isinstance(table, CompressedEmbedding):
            tie_module(head, table)
            del tied[target]
    model.all_tied_weights_keys = tied


def register() -> None:
    """Make transformers know the method; harmless when repeated."""
    if METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        auto.register_quantization_config(METHOD)(WhetConfig)
        auto.register_quantizer(METHOD)(WhetQuantizer)
