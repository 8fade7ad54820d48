"""GGUF files with the shape of a 1.1 G parameter Llama, quantized by llama.cpp.

Runs in an environment with llama-cpp-python, gguf and numpy. Random weights are written in bf16
once; llama.cpp makes the rest of them::

    python bench/speed/gguf_shape.py FOLDER Q4_0 Q8_0
"""

import argparse
from pathlib import Path

import gguf
import llama_cpp as c
import numpy as np

HIDDEN, HEADS, KV_HEADS, FFN, VOCABULARY, LAYERS = 2048, 32, 4, 5632, 32000, 22
KV = HIDDEN // HEADS * KV_HEADS


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor."""
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "output.weight": (VOCABULARY, HIDDEN),
    }
    for i in range(LAYERS):
        block = {
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (KV, HIDDEN),
            "attn_v": (KV, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (FFN, HIDDEN),
            "ffn_up": (FFN, HIDDEN),
            "ffn_down": (HIDDEN, FFN),
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
        }
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    return found


def header(writer: gguf.GGUFWriter) -> None:
    """Write what llama.cpp wants to know of the model, and a vocabulary of made-up words."""
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    words += [f"▁w{i}" for i in range(VOCABULARY - len(words))]
    kinds = [2, 3, 3] + [6] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(i) for i in range(VOCABULARY)])
    writer.add_token_types(kinds + [1] * (VOCABULARY - len(kinds)))


def write(path: Path) -> None:
    """Write the file of random weights."""
    writer = gguf.GGUFWriter(path, "llama")
    header(writer)
    chance = np.random.default_rng(0)
    for name, shape in shapes().items():
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
            continue
        drawn = chance.standard_normal(shape, np.float32) * np.float32(0.02)
        halves = (drawn.view(np.uint32) >> 16).astype(np.uint16)
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(name, halves.view(np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, out: Path, kind: str) -> None:
    """Let llama.cpp quantize; without an importance matrix, as by default."""
    settings = c.llama_model_quantize_default_params()
    settings.ftype = getattr(c, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = 2
    if c.llama_model_quantize(str(source).encode(), str(out).encode(), settings):
        raise RuntimeError(f"llama.cpp does not quantize {source} to {kind}")


def main() -> None:
    """Write those that are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    source = asked.folder / "BF16.gguf"
    if not source.is_file():
        write(source)
    for kind in asked.kinds:
        path = asked.folder / f"{kind}.gguf"
        if not path.is_file():
            quantize(source, path, kind)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
