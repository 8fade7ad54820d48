"""A defect of compressed-tensors 0.18 to 0.20, put right where `import whet` is written.

Before it loads a checkpoint, transformers lets compressed-tensors compress an empty model to learn
the shapes of its tensors. For packed integers with zero points these releases forget to pack the
zero points there, so every such checkpoint (also llm-compressor's W4A16_ASYM) is refused: the size
of `weight_zero_point` is not the expected one. Earlier releases are sound, and so is reading with
`dequantize=True`.
"""

from typing import Any

import torch

_MENDED = "_whet_mended"


def zero_points() -> None:
    """Pack the zero points of empty models; does nothing twice, nor where it is not needed."""
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor

    sound = PackedQuantizationCompressor.compress.__func__
    if getattr(sound, _MENDED, False):
        return

    def compress(cls: type, state_dict: dict[str, Any], scheme: Any) -> dict[str, Any]:  # noqa: ANN401
        found: dict[str, Any] = sound(cls, state_dict, scheme)
        zero = found.get("weight_zero_point")
        if zero is not None and zero.device.type == "meta" and zero.dtype == torch.int8:
            shape = (-(-zero.shape[0] * scheme.weights.num_bits // 32), *zero.shape[1:])
            found["weight_zero_point"] = torch.empty(shape, dtype=torch.int32, device="meta")
        return found

    setattr(compress, _MENDED, True)
    PackedQuantizationCompressor.compress = classmethod(compress)
