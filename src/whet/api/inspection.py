"""What a model folder holds, read from its headers and its records. Needs no torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from whet.base.errors import FolderError, WhetError
from whet.base.record import Record, read_records
from whet.formats.keeping import PAGE, USUAL, page_bytes
from whet.model.opened import opened
from whet.store.folder import Folder, gguf_file

DAMAGED = "`whet verify` shows what else is damaged."
EVIDENCE = ("records.jsonl", "run.jsonl")
SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "context")


@dataclass(frozen=True, slots=True)
class Stock:
    """How many tensors of one type there are, and their size."""

    dtype: str
    tensors: int
    numbers: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model folder at a glance.

    `refusal` says why whet has no blocks for the model, where it has none; `schemes` counts the
    modules of each number format, where the folder's records tell them. `cache` is what keys and
    values are kept in, and `token_bytes` what those of a token take [byte]. `unused` are
    the tensors that the model does not read, and why; numbers of blocks stand as `*`.
    """

    path: Path
    model_type: str
    family: str
    refusal: str
    dialect: str
    nbytes: int
    shards: int
    sizes: Mapping[str, int]
    cache: str
    token_bytes: int
    stock: tuple[Stock, ...]
    schemes: Mapping[str, int]
    skipped: int
    unused: Mapping[str, str]
    records: tuple[Record, ...]


def inspection(path: Path) -> Inspection:
    """Open a folder, check its structure, and return what it holds."""
    folder = opened(path)
    records = folder_records(path)
    family, sizes, refusal, cache, token_bytes = _read(folder)
    quantized = folder.config.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    schemes = Counter(_scheme(record) for record in records if record.step == "scheme")
    if gguf_file(path) is not None:
        method, schemes = "gguf", _blocks(folder)
    return Inspection(
        path,
        str(folder.config.get("model_type", "")),
        family,
        refusal,
        str(method or "plain"),
        folder.nbytes,
        len(folder.shards),
        sizes,
        cache,
        token_bytes,
        _stock(folder),
        dict(schemes.most_common()),
        sum(record.step == "skip" for record in records),
        unused_tensors(folder),
        records,
    )


def unused_tensors(folder: Folder) -> dict[str, str]:
    """Return the tensors that the model does not read, and why; none where it has no family."""
    from whet.model.account import account, grouped
    from whet.model.family import find

    try:
        family = find(folder.config)
        arch = family.architecture(folder.config, folder.tensors)
    except WhetError:
        return {}
    found = account(family, arch, folder.config, folder.tensors)
    return {name: why for name, _, why in grouped(found)}


def folder_records(path: Path) -> tuple[Record, ...]:
    """Return the evidence of a folder: none if it was not written by whet."""
    found: list[Record] = []
    for file in (path / name for name in EVIDENCE):
        if not file.is_file():
            continue
        try:
            with file.open(encoding="utf-8") as lines:
                found += read_records(lines, file)
        except UnicodeDecodeError as error:
            raise FolderError(f"{file}: not UTF-8 text ({error.reason})", DAMAGED) from error
    return tuple(found)


def _read(folder: Folder) -> tuple[str, Mapping[str, int], str, str, int]:
    """Return the family's name and the model's sizes, or why there is no family for it; its cache."""
    from whet.model.family import find

    try:
        family = find(folder.config)
        arch = family.architecture(folder.config, folder.tensors)
    except WhetError as error:
        return "", {}, error.message, "", 0
    sizes = {name: int(getattr(arch, name)) for name in SIZES}
    cache = arch.keeping or USUAL
    taken = arch.layers * arch.kv_heads * page_bytes(cache, arch.head_dim) // PAGE
    return family.name, sizes, "", cache, taken


def _blocks(folder: Folder) -> Counter[str]:
    """Count the matrices of a GGUF file by their blocks, and the format that these are read as."""
    from whet.store.gguf.shard import GgufShard

    found: Counter[str] = Counter()
    for shard in folder.shards.values():
        assert isinstance(shard, GgufShard)
        for described in shard.header.tensors.values():
            kind = described.kind
            matrices = prod(described.shape[:-2]) if len(described.shape) > 1 else 0
            if matrices:
                text = kind.name if kind.plain else f"{kind.name} (as {kind.format})"
                found[text] += matrices
    return Counter(dict(found.most_common()))


def _scheme(record: Record) -> str:
    """Return the format of a module and of its input, in words."""
    activation = record.notes.get("activation", "")
    told = record.notes.get("format", "")
    return f"{told}, inputs {activation}" if activation not in {"", "None"} else told


def _stock(folder: Folder) -> tuple[Stock, ...]:
    """Return the tensors by type, the largest share first."""
    infos = [stored.info for stored in folder.tensors.values()]
    found: list[Stock] = []
    for dtype in dict.fromkeys(info.dtype for info in infos):
        ours = [info for info in infos if info.dtype == dtype]
        nbytes = sum(info.stop - info.start for info in ours)
        found.append(Stock(dtype, len(ours), sum(prod(info.shape) for info in ours), nbytes))
    return tuple(sorted(found, key=lambda stock: -stock.nbytes))
