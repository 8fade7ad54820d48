"""What this process uses and what this machine has left."""

import os
import platform
import re
import shutil
import sys
from pathlib import Path

import psutil


def peak_rss() -> int:
    """Return the largest resident size that this process has had [byte].

    Law: what the process that started this one had is not counted (getrusage counts it on Linux).
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return 1024 * int(found[1])
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def resident() -> int:
    """Return the resident size of this process [byte]."""
    return int(psutil.Process().memory_info().rss)


def free_memory() -> int:
    """Return the memory that can be had without swapping [byte], within the control group's limit."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    return free if limit is None or used is None else min(free, limit - used)


def free_disk(path: Path) -> int:
    """Return the free space where `path` is or would be [byte]."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def cores() -> int:
    """Return how many processors this process may use."""
    told = getattr(os, "sched_getaffinity", None)
    return len(told(0)) if told else os.cpu_count() or 1


def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and the instruction sets that it says it has."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    told = name[1].strip() if name else platform.processor() or platform.machine()
    return told, frozenset(flags[1].split() if flags else ())


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None
