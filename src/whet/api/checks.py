"""What this machine and this installation can do. Versions come from metadata, not from imports."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from whet.base.machine import cores, free_disk, free_memory, processor
from whet.kernels.native import missing, native
from whet.version import __version__

State = Literal["ok", "missing", "problem"]
OLDEST = (3, 11)
FLAGS = (  # of x86 and of ARM: what the kernels look for
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
EXTRAS = {
    "compress": "to compress, and to run and measure by torch",
    "data": "to calibrate on datasets of the hub",
    "eval": "to measure downstream tasks",
    "interop": "to load results with transformers",
    "search": "to search for the best model within limits",
    "train": "to log training for TensorBoard",
}
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what to do if it is not as it should be."""

    name: str
    state: State
    found: str
    hint: str = ""


def checks() -> tuple[Check, ...]:
    """Return everything that was looked at, the base first."""
    return (*_base(), *_machine(), *_packages(), *_surroundings())


def _base() -> Iterator[Check]:
    """Yield the versions of whet and Python."""
    yield Check("whet", "ok", f"{__version__} at {Path(__file__).parent.parent}")
    good = sys.version_info >= OLDEST
    wanted = f"Python {'.'.join(map(str, OLDEST))} or newer is needed"
    found = f"{platform.python_version()} ({platform.python_implementation()})"
    yield Check("python", "ok" if good else "problem", found, "" if good else wanted)


def _machine() -> Iterator[Check]:
    """Yield the processor, its instructions, threads, memory and disk."""
    from psutil import virtual_memory

    yield Check("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")
    name, flags = processor()
    yield Check("processor", "ok", name)
    told = " ".join(flag for flag in FLAGS if flag in flags) or "unknown"
    slow = platform.machine() in {"x86_64", "AMD64"} and bool(flags) and "avx2" not in flags
    hint = "Without AVX2 everything runs, slowly." if slow else ""
    yield Check("instructions", "problem" if slow else "ok", told, hint)
    yield Check("threads", "ok", _threads())
    free, total = free_memory(), int(virtual_memory().total)
    yield Check("memory", "ok", f"{free / GIB:.1f} GiB free of {total / GIB:.1f} GiB")
    here = Path.cwd()
    yield Check("disk", "ok", f"{free_disk(here) / GIB:.1f} GiB free at {here}")


def _threads() -> str:
    """Return how many cores this process may use, and who limits its threads."""
    limit = os.environ.get("OMP_NUM_THREADS")
    return f"{cores()} cores" + (f", OMP_NUM_THREADS={limit}" if limit else "")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that is needed, from which version on and below which, for which extra."""

    package: str
    least: str
    below: str
    extra: str


def requirements() -> tuple[Requirement, ...]:
    """Return what the installed package asks for; nothing if whet is not installed as one."""
    try:
        lines = requires("whet") or []
    except PackageNotFoundError:
        return ()
    found: list[Requirement] = []
    for line in lines:
        bare, _, marker = line.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", bare.strip())
        least, below = re.search(r">=\s*([\d.]+)", bare), re.search(r"<\s*([\d.]+)", bare)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if name:
            start, end = least[1] if least else "", below[1] if below else ""
            found.append(Requirement(name[0], start, end, extra[1] if extra else ""))
    return tuple(found)


def _packages() -> Iterator[Check]:
    """Yield the light packages, then each extra with the line that installs it."""
    every = requirements()
    if not every:
        yield Check("packages", "problem", "whet is not installed as a package", "pip install .")
        return
    yield _extra("packages", [r for r in every if not r.extra], "pip install whet", "problem")
    for extra, purpose in EXTRAS.items():
        wanted = [r for r in every if r.extra == extra]
        line = f'pip install "whet[{extra}]"  # {purpose}'
        yield _extra(f"extra {extra}", wanted, line, "missing")


def _extra(name: str, wanted: list[Requirement], line: str, bad: State) -> Check:
    """Return whether all packages of a set are there, in versions that fit."""
    told = [(r, installed(r.package)) for r in wanted]
    good = all(found and fits(found, r) for r, found in told)
    words = ", ".join(f"{r.package} {_told(found, r)}" for r, found in told)
    return Check(name, "ok" if good else bad, words, "" if good else line)


def _told(found: str | None, wanted: Requirement) -> str:
    """Return a version, and what is wrong with it."""
    if found is None:
        return "is missing"
    if fits(found, wanted):
        return found
    between = [f">={wanted.least}"] * bool(wanted.least) + [f"<{wanted.below}"] * bool(wanted.below)
    return f"{found} (needs {', '.join(between)})"


def installed(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def fits(found: str, wanted: Requirement) -> bool:
    """Return whether a version lies between the bounds; only the leading numbers are compared."""
    here = _numbers(found)
    least, below = _numbers(wanted.least), _numbers(wanted.below)
    return here >= least and (not below or here < below)


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _kernels() -> Check:
    """Return which tier of kernels runs here, or why there are none; and why faster ones do not."""
    lacking = missing()
    if lacking is not None:
        hint = "install a C++20 compiler (g++ 12 or clang 16), then install whet again"
        return Check("kernels", "missing", lacking, hint)
    tier = native().chosen_tier()
    heard = {name: native().tier_refusal(name) for name in reversed(native().written_tiers())}
    refused = [f"{name}: {reason}" for name, reason in heard.items() if reason]
    return Check("kernels", "ok", "; ".join([f"{tier} of {', '.join(native().tiers())}", *refused]))


def _surroundings() -> Iterator[Check]:
    """Yield how models run here, and what the environment asks for."""
    yield _kernels()
    torch = installed("torch")
    executors = ["native"] * (missing() is None) + [f"reference (torch {torch})"] * bool(torch)
    hint = "" if executors else 'pip install "whet[compress]"  # or whet anew, with a C++ compiler'
    yield Check("executor", "ok" if executors else "missing", ", ".join(executors) or "none", hint)
    names = ("HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "NO_COLOR", "WHET_DEBUG", "WHET_PATIENCE")
    told = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield Check("environment", "ok", ", ".join(told) or "nothing set")
