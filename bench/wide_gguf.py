"""A random model of which every row is a multiple of 256 wide, as a GGUF file in f16.

llama.cpp writes K and IQ blocks only into such rows, and other types where a row does not fit; this
model shows each type alone. Tokenizer and settings are those of a GGUF file that is given::

    python bench/wide_gguf.py SOURCE.gguf OUT.gguf
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from numpy.typing import NDArray

HIDDEN, FFN, HEADS, KV_HEADS, LAYERS = 768, 2048, 12, 4, 8
SIZES = {
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": FFN,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.block_count": LAYERS,
    "llama.rope.dimension_count": HIDDEN // HEADS,
    "general.file_type": 1,
}
GENERAL = ("GGUF.", "general.architecture", "general.quantization_version", "split.")


def copy_settings(reader: GGUFReader, writer: GGUFWriter) -> int:
    """Write the settings of a file with the sizes of the wide model; return its vocabulary."""
    for name, field in reader.fields.items():
        if name.startswith(GENERAL):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind is GGUFValueType.ARRAY else None
        writer.add_key_value(name, SIZES.get(name, field.contents()), kind, sub_type=sub)
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def shapes(vocab: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each matrix of the model, (out, in)."""
    keys = HIDDEN // HEADS * KV_HEADS
    yield "token_embd", (vocab, HIDDEN)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_q", (HIDDEN, HIDDEN)
        yield f"{block}.attn_k", (keys, HIDDEN)
        yield f"{block}.attn_v", (keys, HIDDEN)
        yield f"{block}.attn_output", (HIDDEN, HIDDEN)
        yield f"{block}.ffn_gate", (FFN, HIDDEN)
        yield f"{block}.ffn_up", (FFN, HIDDEN)
        yield f"{block}.ffn_down", (HIDDEN, FFN)


def matrix(seed: int, shape: tuple[int, int]) -> NDArray[np.float16]:
    """Return random weights, with the variance that keeps hidden states of one size."""
    drawn = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return (drawn / np.float32(np.sqrt(shape[1]))).astype(np.float16)


def write(source: Path, out: Path) -> None:
    """Write the model with the tokenizer of a file."""
    writer = GGUFWriter(out, "llama")
    vocab = copy_settings(GGUFReader(source), writer)
    norms: dict[str, Any] = {"output_norm": HIDDEN}
    for layer in range(LAYERS):
        norms |= {f"blk.{layer}.{name}": HIDDEN for name in ("attn_norm", "ffn_norm")}
    for name, width in norms.items():
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for seed, (name, shape) in enumerate(shapes(vocab)):
        writer.add_tensor(f"{name}.weight", matrix(seed, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    write(given.source, given.out)
