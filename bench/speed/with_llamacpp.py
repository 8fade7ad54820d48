"""A worker: llama.cpp on a GGUF file, through the C interface that llama-cpp-python carries.

python with_llamacpp.py FILE THREADS CACHE
"""

import ctypes
import sys
import time
from random import Random

import llama_cpp as c
from worker import serve, typical

VOCABULARY, CONTEXT, SEQUENCES = 32000, 4096, 8
CACHES = {"f16": c.GGML_TYPE_F16, "q8_0": c.GGML_TYPE_Q8_0}


def opened(path: str, threads: int, cache: str) -> tuple[object, object]:
    """Return the model and a context of it."""
    c.llama_log_set(_quiet, ctypes.c_void_p(0))
    c.llama_backend_init()
    model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
    settings = c.llama_context_default_params()
    settings.n_ctx = CONTEXT
    settings.n_batch = settings.n_ubatch = 512
    settings.n_seq_max = SEQUENCES
    settings.n_threads = settings.n_threads_batch = threads
    settings.type_k = settings.type_v = CACHES[cache]
    settings.kv_unified = True
    settings.flash_attn_type = 1
    context = c.llama_init_from_model(model, settings)
    if not context:
        raise RuntimeError(f"llama.cpp does not open {path}")
    return model, context


@c.llama_log_callback
def _quiet(level: int, text: bytes, data: object) -> None:
    pass


class Worker:
    """A context, a batch of llama.cpp's and some tokens."""

    def __init__(self, context: object) -> None:
        chance = Random(0)
        self.context, self.memory = context, c.llama_get_memory(context)
        self.ids = [chance.randrange(VOCABULARY) for _ in range(CONTEXT)]
        self.room = c.llama_batch_init(CONTEXT, 0, 1)

    def forward(self, tokens: list[tuple[int, int, int]], wanted: int = 1) -> None:
        """Compute (token, place, sequence) in pieces of 512, with the logits of the last ones."""
        for begin in range(0, len(tokens), 512):
            piece = tokens[begin : begin + 512]
            for i, (token, place, sequence) in enumerate(piece):
                self.room.token[i], self.room.pos[i] = token, place
                self.room.n_seq_id[i], self.room.seq_id[i][0] = 1, sequence
                self.room.logits[i] = begin + i >= len(tokens) - wanted
            self.room.n_tokens = len(piece)
            if c.llama_decode(self.context, self.room):
                raise RuntimeError("llama_decode failed")
        c.llama_synchronize(self.context)

    def prompt(self, length: int, sequence: int = 0) -> None:
        """Compute the first tokens of a sequence."""
        self.forward([(self.ids[i], i, sequence) for i in range(length)])

    def prefill(self, tokens: int) -> float:
        """Tokens a second of one prompt."""
        c.llama_memory_clear(self.memory, True)
        return tokens / typical(lambda _: self.prompt(tokens), 1)

    def decode(self, context: int, count: int) -> float:
        """Tokens a second after a prompt."""
        c.llama_memory_clear(self.memory, True)
        begin = context - count
        self.prompt(begin)
        return 1 / typical(lambda i: self.forward([(self.ids[i], begin + i, 0)]), count)

    def batch(self, sequences: int, count: int) -> float:
        """Tokens a second of several sequences together."""
        c.llama_memory_clear(self.memory, True)
        for sequence in range(sequences):
            self.prompt(32, sequence)

        def step(i: int) -> None:
            now = [(self.ids[i + k], 32 + i, k) for k in range(sequences)]
            self.forward(now, sequences)

        return sequences / typical(step, count)


def main() -> None:
    """Load, and serve."""
    path, threads, cache = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    begin = time.perf_counter()
    _model, context = opened(path, threads, cache)
    worker = Worker(context)
    worker.prompt(1)
    ready = {"seconds to load": time.perf_counter() - begin, "version": c.__version__}
    works = {"prefill": worker.prefill, "decode": worker.decode, "batch": worker.batch}
    serve(works, ready)


if __name__ == "__main__":
    main()
