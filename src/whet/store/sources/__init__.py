"""Sources that other programs have quantized, as plain numbers or as planes of whet. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whet.base.errors import FolderError, UnsupportedError
from whet.store.array import Array, stored
from whet.store.dialects.dialect import Held
from whet.store.dialects.whet import METHOD, VERSION, plane_name
from whet.store.shard import Shard
from whet.store.sources.awq import Awq
from whet.store.sources.bitsandbytes import BitsAndBytes
from whet.store.sources.compressed import CompressedSource
from whet.store.sources.fp8 import Fp8
from whet.store.sources.gptq import Gptq
from whet.store.sources.mxfp4 import Mxfp4
from whet.store.sources.own import KIND, SIZES, OwnSource, sizes_of
from whet.store.sources.shard import DecodedShard, Seen
from whet.store.sources.source import Quantized, SourceDialect

SOURCES: Mapping[str, SourceDialect] = {
    source.name: source
    for source in (
        Gptq(), Awq(), BitsAndBytes(), Fp8("fp8"), Fp8("fbgemm_fp8"), Mxfp4(),
        CompressedSource(), OwnSource(),
    )
}  # fmt: skip
QUANTIZATION = "quantization_config"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A folder as it is seen; `described` is what it is stored in, empty for plain numbers."""

    config: Mapping[str, Any]
    shards: Mapping[str, Shard]
    described: str = ""


def decoded(
    config: Mapping[str, Any], shards: Mapping[str, Shard], where: str, *, dense: bool
) -> Decoded:
    """Return a folder with its codes decoded (`dense`), or as planes of whet where those are exact.

    Folders that whet runs as they are stay so unless `dense`.
    """
    asked = config.get(QUANTIZATION)
    if not asked:
        return Decoded(config, shards)
    if not isinstance(asked, dict):
        raise FolderError(f"{where}: quantization_config is no object", "restore config.json")
    source = SOURCES.get(str(asked.get("quant_method")))
    if source is None and dense:
        raise UnsupportedError(
            f"{where} is compressed by {str(asked.get('quant_method'))[:40]!r}, which whet cannot "
            "read",
            f"give the original model, or one compressed by {', '.join(SOURCES)}",
        )
    if source is None or not (dense or source.runs):
        return Decoded(config, shards, source.describe(asked) if source else "")
    words = dict(asked) | {KIND: config.get("model_type"), SIZES: sizes_of(config)}
    weights = tuple(source.weights(words, _held(shards, where)))
    if not weights and not isinstance(source, CompressedSource | OwnSource):
        raise FolderError(
            f"{where}: config.json says that the model is stored as {source.describe(asked)}, and no "
            "tensor is",
            "restore config.json: a folder of plain numbers has no quantization_config",
        )
    return _seen(config, shards, weights, source.describe(asked), dense=dense)


def _held(shards: Mapping[str, Shard], where: str) -> Held:
    files = {name: shard for shard in shards.values() for name in shard.tensors}

    def raw(name: str) -> Array:
        return stored(files[name], name)

    return Held(files.keys(), raw, where)


def _seen(
    config: Mapping[str, Any],
    shards: Mapping[str, Shard],
    weights: tuple[Quantized, ...],
    described: str,
    *,
    dense: bool,
) -> Decoded:
    """Return the folder with its weights in the place of their codes, each in its first one's file."""
    hidden = frozenset(name for weight in weights for name in weight.uses)
    schemes: dict[str, list[str]] = {}
    seen: dict[str, Seen] = {}
    first: dict[str, str] = {}
    for weight in weights:
        made = _plain(weight) if dense else _planes(weight, schemes)
        seen |= made
        first |= dict.fromkeys(made, weight.uses[0])
    files = {
        file: DecodedShard(
            shard, hidden, {n: item for n, item in seen.items() if first[n] in shard.tensors}
        )
        for file, shard in shards.items()
    }
    bare = {key: value for key, value in config.items() if key != QUANTIZATION}
    if schemes:
        listed = [{"format": text, "modules": names} for text, names in schemes.items()]
        words = {"quant_method": METHOD, "version": VERSION, "schemes": listed, "ignore": []}
        bare[QUANTIZATION] = words
    return Decoded(bare, files, described)


def _plain(weight: Quantized) -> dict[str, Seen]:
    return {weight.name: Seen(weight, "", "F32", weight.shape)}


def _planes(weight: Quantized, schemes: dict[str, list[str]]) -> dict[str, Seen]:
    """Return the planes of a weight, or its plain numbers where no format holds the same."""
    format_ = weight.format()
    if format_ is None:
        return _plain(weight)
    rows, cols = weight.shape
    schemes.setdefault(str(format_), []).append(weight.module)
    return {
        f"{weight.module}.{plane_name(plane)}": Seen(weight, plane, item.dtype, item.shape)
        for plane, item in format_.planes((rows, cols)).items()
    }
