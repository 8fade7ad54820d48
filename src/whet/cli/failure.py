"""What went wrong, in at most three lines, and the exit code that says it to programs."""

import errno
import json
import os
import re
import sys

import click

from whet.base.errors import FitError, MissingError, StorageError, UnsupportedError, WhetError
from whet.base.text import plain
from whet.cli.output import coloured, tell

BUG, USAGE, INTERRUPTED, PIPE, TERMINATED = 1, 2, 130, 141, 143
HEAVY = {"torch", "transformers", "jaxtyping", "scipy", "safetensors"}  # the extra `compress`
LONGEST = 1000  # of a line [character]
NO_PATH = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
SECRETS = re.compile(r"(hf|sk|api)[_-]\w{6,}|(?<=Bearer )\S+")


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; work is kept as after an interrupt."""


def code_of(error: BaseException, *, machine: bool = False) -> int:
    """Tell what went wrong and return the exit code; `machine` asks for JSON."""
    if isinstance(error, TerminatedError) or isinstance(error.__cause__, TerminatedError):
        return _ended("terminated", TERMINATED)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _ended("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return _silenced()
    if isinstance(error, click.ClickException):
        return _say("usage", error.format_message(), _help_line(error), USAGE, machine=machine)
    if isinstance(error, OSError):
        _drain()
    known = expected(error)
    if known is not None:
        kind = type(known).__name__
        return _say(kind, known.message, known.hint, known.code, machine=machine)
    return _bug(error, machine=machine)


def expected(error: BaseException) -> WhetError | None:
    """Return an error raised on purpose, or the one that an exception of Python stands for."""
    if isinstance(error, WhetError):
        return error
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in HEAVY:
        message = f"this needs {error.name}, which is not installed here"
        return UnsupportedError(message, 'pip install "whet[compress]"')
    if isinstance(error, MemoryError):
        return FitError("out of memory", "Free memory, or take a smaller model or fewer samples.")
    if isinstance(error, OSError):
        return _of_the_system(error)
    return None


def _of_the_system(error: OSError) -> WhetError:
    """Return what a refusal of the system stands for: no such path, or a disk that will not."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    told = f"{where}{error.strerror or error}"
    if error.errno in NO_PATH:
        return MissingError(told, "Check the path.")
    return StorageError(told, "Check rights and free space.")


def _ended(word: str, code: int) -> int:
    """Say that a signal ended the command."""
    tell(f"whet: {word}")
    return code


def _silenced() -> int:
    """Be quiet where nobody reads any more, also when Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE


def _drain() -> None:
    """Let go of results that stdout does not take, so that Python does not try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        _silenced()


def _help_line(error: click.ClickException) -> str:
    """Return which help to read."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"See {context.command_path} --help." if context else ""


def _say(kind: str, message: str, hint: str, code: int, *, machine: bool) -> int:
    """Write an error: what, then what to do."""
    message, hint = one_line(message), one_line(hint)
    if machine:
        fields = {"kind": kind, "code": code, "message": message, "hint": hint}
        click.echo(json.dumps({"error": fields}, ensure_ascii=False), err=True)
        return code
    head = click.style("error", fg="red", bold=True) if coloured() else "error"
    click.echo(f"whet: {head}: {message}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    return code


def one_line(text: str) -> str:
    """Return a text on one line, without control characters."""
    line = " ".join(plain(text, keep="\n").split("\n")).strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _bug(error: BaseException, *, machine: bool) -> int:
    """Keep the trace of a mistake of ours in a file, and say where it is."""
    import traceback

    trace = SECRETS.sub("[removed]", "".join(traceback.format_exception(error)))
    if os.environ.get("WHET_DEBUG") == "1":
        click.echo(trace, err=True)
    name = f"{type(error).__name__}: {one_line(SECRETS.sub('[removed]', str(error)))[:200]}"
    return _say("bug", f"internal error, {name}", _kept(trace), BUG, machine=machine)


def _kept(trace: str) -> str:
    """Write a trace to a file of its own; return where it is."""
    import tempfile

    try:
        handle, path = tempfile.mkstemp(prefix="whet-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(trace)
    except OSError:
        return "WHET_DEBUG=1 shows the trace."
    return f"This is a mistake in whet; the trace is in {path}."
