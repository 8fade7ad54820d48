"""Chat templates of strangers, rendered in a process that can do nothing else. Torch-free."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.base.errors import FolderError, UnsafeError

Message = Mapping[str, Any]
SECONDS = 2.0  # that a template may take, imports not counted [s]
MEMORY = 160 << 20  # that the process may map beyond its imports [byte]
OUTPUT = 16 << 20  # [byte]
PATIENCE = 20.0  # that the whole process may take, imports counted [s]
WORKER = Path(__file__).with_name("template_worker.py")


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a chat template as transformers does, in a worker process of its own.

    Law: whatever the template, this returns or raises within `PATIENCE`; the template reaches no
    file, no socket and no other process, and not more than `MEMORY`.
    """
    task = {
        "path": sys.path, "template": template, "values": values,
        "seconds": SECONDS, "memory": MEMORY, "output": OUTPUT,
    }  # fmt: skip
    answer = _ask(json.dumps(task).encode())
    if "text" in answer:
        return answer["text"]
    if answer.get("kind") == "limit":
        raise _limit(answer.get("message", ""))
    raise FolderError(
        f"the chat template refuses this conversation: {str(answer.get('message'))[:200]}",
        "change the messages (roles must often alternate), or use plain text",
    )


def _ask(task: bytes) -> dict[str, Any]:
    """Return the worker's answer; a worker that died has hit a limit."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "TZ") if name in os.environ}
    worker = subprocess.Popen(
        [sys.executable, "-I", str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=kept,
    )
    with worker:
        try:
            out, _ = worker.communicate(task, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise _limit("no answer") from None
        finally:
            worker.kill()
    try:
        return json.loads(out)
    except ValueError:
        raise _limit(f"the process ended with {worker.returncode}") from None


def _limit(why: str) -> UnsafeError:
    return UnsafeError(
        f"the chat template was stopped at {SECONDS:g} s or {MEMORY >> 20} MiB ({why})",
        "do not use this template; use plain text",
    )
