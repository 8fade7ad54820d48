"""Which executor runs a folder, and why not another. Torch-free unless `reference` is taken."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from whet.base.errors import RecipeError, UnsupportedError
from whet.formats.keeping import Keeping
from whet.kernels.native import missing
from whet.runtime.executor import Choice, Executor, Inputs, Kernels
from whet.store.folder import Folder

NATIVE = "whet.runtime.native"
SHOWN = 3  # reasons that a message gives
EXTRA = 'pip install "whet[compress]"'


class Native(Protocol):
    """What `whet.runtime.native` offers."""

    def refusals(self, folder: Folder) -> Sequence[str]:
        """Return why the kernels of this machine cannot run a folder; nothing where they can."""
        ...

    def opened(self, folder: Folder, cache: Keeping | None, inputs: Inputs) -> Executor:
        """Return the folder in memory, with keys and values kept as said, and inputs rounded so."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """An executor, and why it is not the native one where that was wanted."""

    executor: Executor
    fallback: tuple[str, ...] = ()


def chosen(
    folder: Folder,
    executor: Choice = "auto",
    kernels: Kernels = "auto",
    *,
    cache: Keeping | None = None,
    inputs: Inputs = "int16",
    unpacked: bool | None,
) -> Chosen:
    """Return what runs a folder; `auto` takes `native` unless something refuses.

    `cache`: what keys and values are kept in; None: what the folder says. `inputs`: what kernels
    round the inputs of integer weights to, where the folder does not say; the reference rounds none.

    Law: where kernels are required and one refuses, UnsupportedError names the reasons.
    """
    if executor == "reference":
        if kernels == "require":
            raise RecipeError("the reference executor has no kernels", "Take off one of the flags.")
        return Chosen(_reference(folder, (), cache, unpacked=unpacked))
    found = _native(folder, cache, inputs)
    if not isinstance(found, tuple):
        return Chosen(found)
    if executor == "native" or kernels == "require":
        raise UnsupportedError(
            f"the native kernels cannot run {folder.path}: {told(found)}",
            "`whet doctor` shows what this machine has; --executor reference runs everything",
        )
    return Chosen(_reference(folder, found, cache, unpacked=unpacked), found)


def told(reasons: Sequence[str]) -> str:
    """Return reasons as one line, the first few of them."""
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return "; ".join(reasons[:SHOWN]) + more


def _native(folder: Folder, cache: Keeping | None, inputs: Inputs) -> Executor | tuple[str, ...]:
    """Return the native executor, or why there is none."""
    lacking = missing()
    if lacking is not None:
        return (lacking,)
    if importlib.util.find_spec(NATIVE) is None:
        return ("this build has no native executor",)
    native = cast("Native", import_module(NATIVE))
    reasons = tuple(native.refusals(folder))
    if reasons:
        return reasons
    try:
        return native.opened(folder, cache, inputs)
    except UnsupportedError as error:
        return (error.message,)


def _reference(
    folder: Folder, reasons: tuple[str, ...], cache: Keeping | None, *, unpacked: bool | None
) -> Executor:
    """Return the reference executor; `reasons` say why not the native one."""
    if importlib.util.find_spec("torch") is None:
        why = f"{told(reasons)}, and " if reasons else ""
        raise UnsupportedError(
            f"{folder.path} cannot run here: {why}torch, which the reference executor needs, "
            "is not installed",
            EXTRA,
        )
    from whet.runtime.reference import load

    return load(folder, cache=cache, unpacked=unpacked)
