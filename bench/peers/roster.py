"""The peers: what to install for each, and which settings of it to measure.

Standard library only, so that the runner needs nothing installed.
"""

from dataclasses import dataclass, field
from typing import Any

TORCH = "torch==2.13.0"
"""Installed first in every environment, and a constraint on the rest."""

EVALUATOR = ("transformers==5.23.0",)
"""Pins of the environment in which dense folders are measured."""


@dataclass(frozen=True)
class Setting:
    """One number format reached by one method of a peer."""

    name: str
    bits: int
    group: int
    scale_bits: int = 16
    zero_bits: int = 0
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def bits_per_weight(self) -> float:
        """Codes, scales and zero points of a block linear [bit]."""
        return self.bits + (self.scale_bits + self.zero_bits) / self.group


@dataclass(frozen=True)
class Peer:
    """A tool: its adapter file, the package whose version counts, its pins and its settings."""

    tool: str
    adapter: str
    package: str
    pins: tuple[str, ...]
    settings: tuple[Setting, ...]


def _grid(method: str, bits: int, group: int, *, symmetric: bool) -> Setting:
    kind = "sym" if symmetric else "asym"
    return Setting(
        name=f"{method} int{bits}-g{group} {kind}",
        bits=bits,
        group=group,
        zero_bits=0 if symmetric else bits,
        options={"method": method.lower(), "symmetric": symmetric},
    )


LLM_COMPRESSOR = Peer(
    tool="llm-compressor",
    adapter="with_llmcompressor.py",
    package="llmcompressor",
    pins=("llmcompressor==0.14.0.1", "compressed-tensors==0.19.0", "transformers==5.17.0"),
    settings=(
        _grid("GPTQ", 4, 64, symmetric=True),
        _grid("GPTQ", 4, 64, symmetric=False),
        _grid("GPTQ", 3, 64, symmetric=False),
        _grid("GPTQ", 2, 64, symmetric=False),
        _grid("GPTQ", 4, 128, symmetric=True),
        _grid("RTN", 4, 64, symmetric=True),
        _grid("RTN", 4, 64, symmetric=False),
        _grid("RTN", 3, 64, symmetric=False),
        _grid("RTN", 2, 64, symmetric=False),
        _grid("RTN", 4, 128, symmetric=True),
    ),
)

AUTO_ROUND = Peer(
    tool="AutoRound",
    adapter="with_autoround.py",
    package="auto-round",
    pins=("auto-round==0.16.1", "transformers==5.23.0"),
    settings=tuple(
        Setting(
            name=f"int{bits}-g64 {'sym' if symmetric else 'asym'} iters=200",
            bits=bits,
            group=64,
            zero_bits=0 if symmetric else bits,
            options={"iterations": 200, "symmetric": symmetric},
        )
        for bits, symmetric in ((4, True), (3, False), (2, False))
    )
    + tuple(
        Setting(
            name=f"AutoScheme {average} g64 asym iters=200",
            bits=8,
            group=64,
            zero_bits=8,
            options={"iterations": 200, "symmetric": False, "average": average},
        )
        for average in (3.0, 3.5, 4.0)
    ),
)

BITSANDBYTES = Peer(
    tool="bitsandbytes",
    adapter="with_bitsandbytes.py",
    package="bitsandbytes",
    pins=("bitsandbytes==0.50.2", "transformers==5.23.0"),
    settings=(Setting("NF4-b64", bits=4, group=64, scale_bits=32, options={"kind": "nf4"}),),
)

HQQ = Peer(
    tool="HQQ",
    adapter="with_hqq.py",
    package="hqq",
    pins=("hqq==0.2.8.post1", "transformers==5.23.0"),
    settings=tuple(
        Setting(f"int{bits}-g64", bits=bits, group=64, zero_bits=16) for bits in (4, 3, 2)
    ),
)

LLAMA_CPP = Peer(
    tool="llama.cpp",
    adapter="with_llamacpp.py",
    package="llama-cpp-python",
    pins=("llama-cpp-python==0.3.36", "gguf", "safetensors", "transformers==5.23.0"),
    settings=tuple(
        Setting(f"{kind} imatrix", bits=8, group=256, options={"kind": kind})
        for kind in ("IQ2_M", "IQ3_XXS", "IQ3_S", "Q3_K_S", "IQ3_M", "Q3_K_M", "Q3_K_L", "IQ4_XS")
    ),
)

PEERS = (LLM_COMPRESSOR, AUTO_ROUND, BITSANDBYTES, HQQ, LLAMA_CPP)
