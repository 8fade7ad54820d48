"""Write a GGUF file of another type: `python quantize_gguf.py SOURCE.gguf OUT.gguf TYPE`.

In an environment with llama-cpp-python and gguf. SOURCE may be of any type. Every input counts alike:
llama.cpp writes the types below 3 bits only with an importance, on which speed does not depend. Of the
types of which it makes no model but experts (MXFP4) all matrices are written.
"""

import ctypes
import sys
from pathlib import Path

import gguf
import llama_cpp as c
import numpy as np

FORCED = {"MXFP4": (c.LLAMA_FTYPE_MOSTLY_MXFP4_MOE, c.GGML_TYPE_MXFP4)}


@c.llama_log_callback
def _quiet(level: int, text: bytes, data: object) -> None:
    pass


def alike(source: Path) -> tuple[ctypes.Array, list[np.ndarray]]:
    """Return an importance of one for every input of every matrix, and the memory that it points to."""
    entry, floats = c.llama_model_imatrix_data, ctypes.POINTER(ctypes.c_float)
    ones: list[np.ndarray] = []
    entries: list[c.llama_model_imatrix_data] = []
    for tensor in gguf.GGUFReader(source).tensors:
        if len(tensor.shape) < 2:
            continue
        experts = int(tensor.shape[2]) if len(tensor.shape) > 2 else 1
        ones.append(np.ones(int(tensor.shape[0]) * experts, np.float32))
        at = ones[-1].ctypes.data_as(floats)
        entries.append(entry(tensor.name.encode(), at, ones[-1].size))
    return (entry * (len(entries) + 1))(*entries), ones  # the last, of zeros, ends it


def main(source: Path, out: Path, kind: str) -> int:
    """Write the file; return what llama.cpp says, 0 if all is well."""
    c.llama_log_set(_quiet, ctypes.c_void_p(0))
    c.llama_backend_init()
    settings = c.llama_model_quantize_default_params()
    settings.allow_requantize, settings.nthread = True, 2
    settings.imatrix, held = alike(source)
    override = c.llama_model_tensor_override
    if kind in FORCED:
        settings.ftype, number = FORCED[kind]
        settings.tt_overrides = (override * 2)(override(b"blk", number))
        settings.token_embedding_type = settings.output_tensor_type = number
    else:
        settings.ftype = getattr(c, f"LLAMA_FTYPE_MOSTLY_{kind}")
    failed = c.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(settings))
    del held
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
