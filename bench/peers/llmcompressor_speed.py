"""Time and memory that llm-compressor takes for GPTQ int4-g128 sym, from loading to saving.

The calibration is random tokens: time does not depend on which. Run it in the environment that
``run.py`` makes for llm-compressor, on a folder from ``bench/shape.py``. Printed, and appended to
``--out``: one JSON object.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from with_llmcompressor import compress, scheme


def main() -> None:
    """Load, compress, save if asked, and print the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder to compress")
    parser.add_argument(
        "--save", type=Path, help="folder for the compressed model (default: not saved)"
    )
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    parser.add_argument("--samples", type=int, default=32, help="calibration windows")
    parser.add_argument("--length", type=int, default=512, help="tokens in a window")
    parser.add_argument(
        "--batch", type=int, default=1, help="windows in a batch; 1 is the tool's default"
    )
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="auto")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    after_load = time.perf_counter()
    source = torch.Generator().manual_seed(0)
    tokens = torch.randint(
        model.config.vocab_size, (arguments.samples, arguments.length), generator=source
    )
    compress(model, "gptq", scheme(4, 128, symmetric=True), tokens, batch=arguments.batch)
    after_compress = time.perf_counter()
    if arguments.save:
        model.save_pretrained(arguments.save, save_compressed=True)
        AutoTokenizer.from_pretrained(arguments.model).save_pretrained(arguments.save)
    record = {
        "tool": "llm-compressor",
        "version": version("llmcompressor"),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "setting": "GPTQ int4-g128 sym",
        "parameters": parameters,
        "layers": model.config.num_hidden_layers,
        "samples": arguments.samples,
        "length": arguments.length,
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "load_seconds": after_load - started,
        "compress_seconds": after_compress - after_load,
        "save_seconds": time.perf_counter() - after_compress,
        "wall_seconds": time.perf_counter() - started,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    line = json.dumps(record)
    print(line)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


if __name__ == "__main__":
    main()
