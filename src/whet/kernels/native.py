"""The native extension, or the reason why there is none. Needs no torch."""

from functools import cache
from importlib import import_module
from types import ModuleType

from whet.base.errors import UnsupportedError


@cache
def _loaded() -> ModuleType | str:
    """Return the extension, or why it cannot be loaded."""
    try:
        return import_module("whet.kernels._native")
    except ModuleNotFoundError:
        return "the native kernels are not built: whet was installed without a C++20 compiler"
    except ImportError as error:
        return f"the native kernels cannot be loaded: {error}"


def missing() -> str | None:
    """Return why there are no native kernels here, or None if there are."""
    found = _loaded()
    return found if isinstance(found, str) else None


def native() -> ModuleType:
    """Return the extension; raise UnsupportedError if it is not there."""
    found = _loaded()
    if isinstance(found, str):
        raise UnsupportedError(
            found, "install a C++20 compiler (g++ 12 or clang 16), then install whet again"
        )
    return found
