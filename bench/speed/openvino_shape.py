"""OpenVINO's representation of the 1.1 G shape: int4 in groups of 32, head and embedding in int8.

Runs in an environment with optimum-intel, openvino and nncf, on a folder of ``shape.py``::

    python bench/speed/openvino_shape.py SHAPE OUT
"""

import sys

from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig


def main() -> None:
    """Export and quantize, without data."""
    settings = OVWeightQuantizationConfig(bits=4, group_size=32, sym=True, ratio=1.0)
    model = OVModelForCausalLM.from_pretrained(
        sys.argv[1], export=True, compile=False, quantization_config=settings
    )
    model.save_pretrained(sys.argv[2])


if __name__ == "__main__":
    main()
