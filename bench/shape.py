"""A folder with the shape of a 1.1 G parameter Llama and random weights, to measure speed on.

Speed does not depend on the values, so they are drawn from N(0, 0.02) with a fixed seed. One shard
per block is written as soon as it is drawn; RAM holds one block, or one embedding matrix, at a
time. Needs torch and safetensors::

    python bench/shape.py OUT [--tokenizer FOLDER] --layers 22
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, HEADS, KV_HEADS, FFN, VOCABULARY = 2048, 32, 4, 5632, 32000
KV = HIDDEN // HEADS * KV_HEADS
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
)

Shapes = dict[str, tuple[int, ...]]


def block_shapes(index: int) -> Shapes:
    """The tensors of one decoder block."""
    matrices: Shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (KV, HIDDEN),
        "self_attn.v_proj": (KV, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (FFN, HIDDEN),
        "mlp.up_proj": (FFN, HIDDEN),
        "mlp.down_proj": (HIDDEN, FFN),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }
    return {f"model.layers.{index}.{name}.weight": shape for name, shape in matrices.items()}


def shards(layers: int) -> Iterator[Shapes]:
    """What goes into each file: the embedding, each block, and the norm with the untied head."""
    yield {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for index in range(layers):
        yield block_shapes(index)
    yield {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def drawn(shapes: Shapes, source: torch.Generator) -> dict[str, torch.Tensor]:
    """Matrices from N(0, 0.02) and norms of one, in bfloat16."""
    return {
        name: torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) == 1
        else torch.empty(shape, dtype=torch.bfloat16).normal_(0.0, 0.02, generator=source)
        for name, shape in shapes.items()
    }


def config(layers: int) -> dict[str, object]:
    """The Hugging Face configuration of the shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "dtype": "bfloat16",
        "eos_token_id": 2,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": FFN,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def write(out: Path, layers: int, seed: int) -> int:
    """Write weights, index and configuration; the number of parameters."""
    out.mkdir(parents=True, exist_ok=True)
    source = torch.Generator().manual_seed(seed)
    places: dict[str, str] = {}
    parameters = 0
    for index, shapes in enumerate(shards(layers), start=1):
        file = f"model-{index:05d}-of-{layers + 2:05d}.safetensors"
        tensors = drawn(shapes, source)
        save_file(tensors, out / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
        parameters += sum(tensor.numel() for tensor in tensors.values())
    weight_map = {"metadata": {"total_size": 2 * parameters}, "weight_map": places}
    (out / "model.safetensors.index.json").write_text(
        json.dumps(weight_map, indent=1), encoding="utf-8"
    )
    (out / "config.json").write_text(json.dumps(config(layers), indent=2), encoding="utf-8")
    return parameters


def main() -> None:
    """Write the folder and say how large the model is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--tokenizer", type=Path, help="model folder whose tokenizer is copied")
    parser.add_argument(
        "--layers",
        type=int,
        default=22,
        help="decoder blocks (11 and 44 halve and double the body)",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    parameters = write(arguments.out, arguments.layers, arguments.seed)
    for name in TOKENIZER_FILES:
        if arguments.tokenizer and (arguments.tokenizer / name).is_file():
            shutil.copyfile(arguments.tokenizer / name, arguments.out / name)
    print(f"{arguments.out}: {parameters:,} parameters in {arguments.layers} blocks")


if __name__ == "__main__":
    main()
