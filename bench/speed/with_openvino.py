"""A worker: OpenVINO on an intermediate representation with a state.

python with_openvino.py FOLDER THREADS
"""

import sys
import time
from pathlib import Path

import numpy as np
import openvino as ov
from worker import serve, typical


class Worker:
    """A request and some tokens."""

    def __init__(self, folder: Path, threads: int) -> None:
        core = ov.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        model = core.compile_model(folder / "openvino_model.xml", "CPU", settings)
        self.request = model.create_infer_request()
        self.ids = np.random.default_rng(0).integers(0, 32000, 4096)

    def forward(self, begin: int, tokens: int) -> None:
        """Compute tokens at the end of what the state holds."""
        self.request.infer(
            {
                "input_ids": self.ids[None, begin : begin + tokens],
                "attention_mask": np.ones((1, begin + tokens), np.int64),
                "position_ids": np.arange(begin, begin + tokens)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
        )

    def prefill(self, tokens: int) -> float:
        """Tokens a second of one prompt."""
        self.request.reset_state()
        return tokens / typical(lambda _: self.forward(0, tokens), 1)

    def decode(self, context: int, count: int) -> float:
        """Tokens a second after a prompt."""
        self.request.reset_state()
        begin = context - count
        self.forward(0, begin)
        return 1 / typical(lambda i: self.forward(begin + i, 1), count)


def main() -> None:
    """Load, and serve."""
    begin = time.perf_counter()
    worker = Worker(Path(sys.argv[1]), int(sys.argv[2]))
    worker.forward(0, 1)
    ready = {"seconds to load": time.perf_counter() - begin, "version": ov.__version__}
    serve({"prefill": worker.prefill, "decode": worker.decode}, ready)


if __name__ == "__main__":
    main()
