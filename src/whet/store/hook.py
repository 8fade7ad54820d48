"""`import whet` lets transformers load what whet writes, without importing it. Torch-free.

A module that is not imported yet is given an action to follow its import; one that is imported
already is acted on at once.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import cast

Action = Callable[[], None]


def install(more: Mapping[str, Action] = MappingProxyType({})) -> None:
    """Act on transformers now, or when it is imported. May be called twice.

    `more` are actions besides those of the store, by the module that they follow.
    """
    if not any(isinstance(finder, _After) for finder in sys.meta_path):
        actions = {**ACTIONS, **more}
        sys.meta_path.insert(0, _After(actions))
        for name, action in actions.items():
            if name in sys.modules:
                action()


def _register() -> None:
    """Make transformers know `quant_method` "whet"."""
    if importlib.util.find_spec("torch") is not None:
        from whet.store import huggingface

        huggingface.register()


def _mend() -> None:
    """Let compressed-tensors 0.18 to 0.20 load packed zero points."""
    from whet.store import mend

    mend.zero_points()


ACTIONS: Mapping[str, Action] = {
    "transformers.quantizers.auto": _register,
    "compressed_tensors.compressors.pack_quantized.base": _mend,
}


class _After(MetaPathFinder):
    """Finds nothing itself: lets the others find a module and adds an action to its loader."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = actions

    def find_spec(
        self,
        fullname: str,
        path: Iterable[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return what the other finders find, with the action attached."""
        action = self._actions.get(fullname)
        if action is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        where = cast("Sequence[str] | None", path)  # a namespace's path only iterates
        specs = (finder.find_spec(fullname, where, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _follow(spec.loader, action)
        return spec


def _follow(loader: Loader, action: Action) -> None:
    """Make a loader run `action` once it has executed its module."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        action()

    loader.exec_module = exec_module
