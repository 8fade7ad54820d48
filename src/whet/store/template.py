"""Chat templates of strangers, rendered in a process that can do nothing else. Torch-free."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from whet.base.errors import FolderError, UnsafeError

Message = Mapping[str, Any]
SECONDS = 2.0  # wall time that rendering one conversation may take [s]
MEMORY = 160 << 20  # address space that the process may map beyond its imports [byte]
OUTPUT = 16 << 20  # [byte]
START_S = 20.0  # wall time that starting Python and importing jinja2 may take [s]
WORKER = Path(__file__).with_name("template_worker.py")
CRASHED = {"kind": "limit"}


class Worker:
    """A confined process that renders conversations by one chat template, one after another.

    Law: `ask` returns within `START_S` + `SECONDS`, whatever the template; a process that exceeded a
    limit is ended and replaced at the next conversation.
    """

    def __init__(self, template: str) -> None:
        self.template = template
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the process's answer: `text`, or `kind` and `message` of what prevented it."""
        with ExitStack() as undone:
            undone.callback(self.close)  # an interrupted exchange leaves half an answer in the pipe
            answer = self._exchange(values)
            if answer.get("kind") != "limit":
                undone.pop_all()
        return answer

    def _exchange(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        process = self._process or self._start()
        if process is None:
            return {**CRASHED, "message": "the process did not start"}
        line = _exchanged(process, json.dumps(values).encode(), SECONDS + 0.5)
        try:
            return json.loads(line)
        except ValueError:
            process.kill()
            return {**CRASHED, "message": f"the process ended with {process.wait()}"}

    def _start(self) -> "subprocess.Popen[bytes] | None":
        """Return a new process that has compiled nothing yet and is confined, or None."""
        kept = {name: os.environ[name] for name in ("SYSTEMROOT", "TZ") if name in os.environ}
        process = self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept,
            start_new_session=True,  # Ctrl-C in the terminal is for whet, not for this process
        )
        limits = {"seconds": SECONDS, "memory": MEMORY, "output": OUTPUT}
        task = {"path": sys.path, "template": self.template, **limits}
        if _exchanged(process, json.dumps(task).encode(), START_S) == b"ready\n":
            return process
        return None

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _exchanged(process: "subprocess.Popen[bytes]", line: bytes, seconds: float) -> bytes:
    """Return the line with which a process answers; it is killed after some seconds."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        if process.stdin is None or process.stdout is None:
            return b""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
        return process.stdout.readline()
    finally:
        timer.cancel()


class _Shared:
    """The workers that are kept between conversations, while somebody reads many of them."""

    def __init__(self) -> None:
        self.readers = 0
        self.worker: Worker | None = None
        self.lock = threading.RLock()

    def of(self, template: str) -> Worker:
        """Return the worker of a template; that of another template is ended."""
        if self.worker is None or self.worker.template != template:
            self.close()
            self.worker = Worker(template)
        return self.worker

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            self.worker.close()
        self.worker = None


_SHARED = _Shared()


@contextlib.contextmanager
def shared_worker() -> Generator[None]:
    """Let all conversations that are rendered inside share one worker process."""
    with ExitStack() as undone:
        with _SHARED.lock:
            _SHARED.readers += 1
        undone.callback(_leave)
        yield


def _leave() -> None:
    with _SHARED.lock:
        _SHARED.readers -= 1
        if not _SHARED.readers:
            _SHARED.close()


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a chat template as transformers does, in a confined worker process.

    Inside `shared_worker` one process renders all conversations; elsewhere each has its own.
    Law: whatever the template, this returns or raises within `START_S` + `SECONDS`; the template
    reaches no file, no socket and no other process, and not more than `MEMORY`.
    """
    with _SHARED.lock, shared_worker():
        answer = _SHARED.of(template).ask(values)
    if "text" in answer:
        return answer["text"]
    if answer.get("kind") == "limit":
        raise UnsafeError(
            f"the chat template was stopped at {SECONDS:g} s or {MEMORY >> 20} MiB "
            f"({answer.get('message', '')})",
            "do not use this template; use plain text",
        )
    raise FolderError(
        f"the chat template refuses this conversation: {str(answer.get('message'))[:200]}",
        "change the messages (roles must often alternate), or use plain text",
    )
