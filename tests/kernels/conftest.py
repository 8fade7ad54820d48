"""`WHET_NATIVE` names another build of the extension, such as one with sanitizers."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location

NAME = "whet.kernels._native"

if other := os.environ.get("WHET_NATIVE"):
    import whet.kernels

    spec = spec_from_file_location(NAME, other)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
    whet.kernels._native = sys.modules[NAME]
