"""Names of formats, one of every kind: for the laws, and for hints."""

EXAMPLES: tuple[str, ...] = (
    "f32", "f16", "bf16",
    "int4-g64", "int4-g64-affine", "int2-g16-affine", "int2-g32", "int3-g64-affine",
    "int3-channel", "int5-g32", "int6-channel-affine", "int7-g64", "int8-channel", "int8-tensor",
    "int8-tensor-affine", "int4-g64-f16", "int4-g32-affine-f32", "int4-g32-e8m0",
    "fp8-e4m3-channel", "fp8-e4m3-tensor", "fp8-e5m2-channel", "fp6-e3m2-g64", "fp6-e2m3-g64",
    "fp4-g64", "mxfp4", "mxfp8", "nvfp4",
    "nf4-g64", "nf2-g64", "nf3-channel", "nf8-tensor",
    "log4-g64", "log2-g32", "log3-g64-base1.86", "log4-g64-tuned", "log4-g32-e8m0",
    "apot4-g64", "apot5-channel",
    "codebook4-channel", "codebook4-tensor", "codebook4-g64", "codebook3-g64-shared",
    "codebook2-channel-shared",
    "int2-g64 + int2-g64", "int4-channel + nf2-g32",
    "lowrank-8", "lowrank-8(int8-g64)", "int4-g64 + lowrank-8", "int3-g64-affine + lowrank-4(int8-g64)",
)  # a name of every kind; the laws run on each  # fmt: skip
SPARSE: tuple[str, ...] = (
    "2:4(bf16)", "2:4(int4-g64)", "4:8(int8-channel)", "1:4(int4-g32-affine)", "5:16(nf4-g64)",
    "sparse50(bf16)", "sparse50(int4-g64)", "sparse62.5(int3-channel)", "sparse70(int4-tensor)",
    "sparse50-tensor(f16)", "sparse50-tensor(int4-g64)", "sparse30-tensor(nvfp4)",
)  # a name of every kind that keeps some of the weights alone  # fmt: skip


def some(names: tuple[str, ...]) -> str:
    """Return a few of some names."""
    return ", ".join(names[::6])
