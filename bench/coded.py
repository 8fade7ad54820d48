"""A folder with the shape of a 1.1 G parameter Llama and random codes of some format.

Speed does not depend on the values: codes are random bytes, scales are such that activations keep
their size. Nothing is compressed, so it takes seconds. Needs neither torch nor a source::

    python bench/coded.py OUT --format int4-g32 --head int4-g32 --tokenizer FOLDER
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from shape import TOKENIZER_FILES, config

from whet.formats.spec import Float, Format, Plane, parse
from whet.model.family import find
from whet.store.dialects.whet import WHET
from whet.store.scheme import Scheme


def numbers(plane: Plane, name: str, chance: np.random.Generator) -> bytes:
    """Random codes; of scales and norms one value, so that products stay finite."""
    if plane.dtype in ("U8", "I8"):
        return chance.bytes(plane.nbytes)
    count = int(np.prod(plane.shape))
    value = np.full(count, 1.0 if "norm" in name else 0.004, np.float32)
    if name.endswith(("embed_tokens.weight", "value")) or name == "lm_head.weight":
        value = chance.standard_normal(count, np.float32) * np.float32(0.02)
    if plane.dtype == "BF16":
        return (value.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return value.astype({"F16": np.float16, "F32": np.float32}[plane.dtype]).tobytes()


def tensors(layers: int, scheme: Scheme, head: Scheme) -> Iterator[tuple[str, Plane]]:
    """Every tensor of the folder."""
    family = find(config(layers))
    arch = family.architecture(config(layers))
    for site in family.sites(arch):
        mine = {"head": head, "embed": Scheme(Float("BF16"))}.get(site.role, scheme)
        for name, (dtype, shape) in WHET.layout(site, mine).items():
            yield name, Plane(dtype, shape)
    held = {site.tensor for site in family.sites(arch)}
    for name, shape in family.tensors(arch).items():
        if name not in held:
            yield name, Plane("BF16", shape)


def write(out: Path, layers: int, format_: Format, head: Format) -> int:
    """Write weights and configuration; return the bytes of the weights."""
    out.mkdir(parents=True, exist_ok=True)
    every = dict(tensors(layers, Scheme(format_), Scheme(head)))
    header: dict[str, object] = {}
    position = 0
    for name, plane in every.items():
        offsets = [position, position + plane.nbytes]
        header[name] = {"dtype": plane.dtype, "shape": list(plane.shape), "data_offsets": offsets}
        position += plane.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    chance = np.random.default_rng(0)
    with (out / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, plane in every.items():
            file.write(numbers(plane, name, chance))
    family = find(config(layers))
    arch = family.architecture(config(layers))
    schemes = {
        site.module: Scheme(head if site.role == "head" else format_)
        for site in family.sites(arch)
        if site.role != "embed"
    }
    whole = config(layers) | {"quantization_config": WHET.config(schemes, ())}
    (out / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    return position


def main() -> None:
    """Write the folder and say how large it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--format", type=parse, default=parse("int4-g32"), dest="format_")
    parser.add_argument("--head", type=parse, default=parse("int4-g32"))
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--tokenizer", type=Path, help="folder whose tokenizer is copied")
    given = parser.parse_args()
    nbytes = write(given.out, given.layers, given.format_, given.head)
    for name in TOKENIZER_FILES if given.tokenizer else ():
        if (given.tokenizer / name).is_file():
            shutil.copyfile(given.tokenizer / name, given.out / name)
    print(f"{given.out}: {nbytes:,} bytes of weights")


if __name__ == "__main__":
    main()
