"""Write a model as llama.cpp does, whole: `python llamacpp_files.py SOURCE.gguf IMPORTANCE.npz OUT TYPE…`.

In an environment with llama-cpp-python and gguf. SOURCE is a GGUF file of any type; its numbers are
decoded and rounded to bfloat16 first, so that every tool starts from the same weights. Prints a JSON
line for each file: its type, its size and the time that llama.cpp took.
"""

import ctypes
import json
import re
import sys
import time
from pathlib import Path

import gguf
import llama_cpp as c
import numpy as np

BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def translated(module: str) -> str:
    """Return the name of a linear's weight in GGUF."""
    if module == "lm_head":
        return "output.weight"
    layer, name = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module).groups()
    return f"blk.{layer}.{BLOCK[name]}.weight"


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Return numbers rounded to the nearest bfloat16, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def write_plain(source: Path, out: Path) -> None:
    """Write the same model with every matrix in float32 numbers of bfloat16."""
    read = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, read.fields["general.architecture"].contents())
    for name, field in read.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in read.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        writer.add_tensor(tensor.name, bfloat16(values.reshape(shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, importance: dict[str, np.ndarray], out: Path, kind: str) -> float:
    """Write a file of a type; return the time it took [s]."""
    entry = c.llama_model_imatrix_data
    floats = ctypes.POINTER(ctypes.c_float)
    named = {translated(name).encode(): values for name, values in importance.items()}
    entries = [entry(name, v.ctypes.data_as(floats), v.size) for name, v in named.items()]
    settings = c.llama_model_quantize_default_params()
    settings.ftype = getattr(c, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = 2
    settings.imatrix = (entry * (len(entries) + 1))(*entries)  # the last, of zeros, ends it
    began = time.perf_counter()
    if c.llama_model_quantize(str(source).encode(), str(out).encode(), settings):
        raise RuntimeError(f"llama.cpp makes no {kind} of {source}")
    return time.perf_counter() - began


@c.llama_log_callback
def _quiet(level: int, text: bytes, data: object) -> None:
    pass


def main() -> None:
    """Write the types named on the command line."""
    source, importance, out, *kinds = sys.argv[1:]
    c.llama_log_set(_quiet, ctypes.c_void_p(0))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "plain.gguf"
    if not plain.exists():
        write_plain(Path(source), plain)
    squares = {name: np.ascontiguousarray(v) for name, v in np.load(importance).items()}
    for kind in kinds:
        made = folder / f"{kind}.gguf"
        seconds = quantize(plain, squares, made, kind)
        print(
            json.dumps({"kind": kind, "bytes": made.stat().st_size, "seconds": seconds}), flush=True
        )


if __name__ == "__main__":
    main()
