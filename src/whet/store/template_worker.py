"""The process in which conversations are rendered by one chat template; imports jinja2 alone.

Run as a script. Reads lines of JSON from stdin: first the template and the limits, answered by
`ready`, then the values of one conversation each, answered by {"text"} or {"kind", "message"}.
"""

import contextlib
import importlib
import json
import signal
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

LATER = ("jinja2.debug", "jinja2.constants", "pprint", "encodings.unicode_escape", "linecache")
# what jinja2 imports only when a template needs it, when files can no longer be opened


def main() -> None:
    """Render conversations until stdin ends; each may take some seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whet ends this process, not the terminal
    task = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = task["path"]
    environment = _environment()
    for name in LATER:
        importlib.import_module(name)
    _confine(task["memory"])
    _say(b"ready")
    template = None
    for line in iter(sys.stdin.buffer.readline, b""):
        _limit_time(task["seconds"])
        template, answer = _rendered(environment, template, task, line)
        _limit_time(0)
        _say(json.dumps(answer).encode())


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def _rendered(
    environment: Any,  # noqa: ANN401 (jinja2 is imported late)
    template: Any,  # noqa: ANN401
    task: dict[str, Any],
    line: bytes,
) -> tuple[Any, dict[str, str]]:
    """Return the compiled template, and the text of one conversation or why there is none."""
    from jinja2.exceptions import SecurityError, TemplateError

    try:
        template = template or environment.from_string(task["template"])
        text = template.render(**json.loads(line))
    except SecurityError as error:
        return template, {"kind": "template", "message": f"unsafe: {error}"}
    except (MemoryError, RecursionError) as error:
        return template, {"kind": "limit", "message": type(error).__name__}
    except (TemplateError, ArithmeticError, AttributeError, LookupError) as error:
        return template, {"kind": "template", "message": str(error)}
    except (TypeError, ValueError) as error:
        return template, {"kind": "template", "message": str(error)}
    if len(text) > task["output"]:
        return template, {"kind": "limit", "message": "output too long"}
    return template, {"text": text}


def _environment() -> Any:  # noqa: ANN401 (jinja2 is imported late)
    """Return the environment that transformers renders chat templates in.

    The sandbox is jinja2's immutable one; `{% generation %}` marks text and changes nothing.
    """
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

        def parse(self, parser: Any) -> Any:  # noqa: ANN401
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    class Namespace(jinja2.utils.Namespace):
        """No attribute of it may begin with an underscore."""

        def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (`self` may be a key)
            values = dict(*args[1:], **kwargs)
            _public(values)
            jinja2.utils.Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: object) -> None:
            _public([name])
            super().__setitem__(name, value)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    names: dict[str, Any] = {
        "raise_exception": _raise, "strftime_now": _now, "namespace": Namespace, "dict": _dict,
    }  # fmt: skip
    environment.globals.update(names)
    environment.filters["tojson"] = _tojson
    return environment


def _public(names: Iterable[object]) -> None:
    from jinja2.exceptions import SecurityError

    if any(isinstance(name, str) and name.startswith("_") for name in names):
        raise SecurityError("names of a namespace may not begin with an underscore")


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:  # noqa: ANN401
    return dict(*args, **kwargs)


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 (as transformers has it)
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _confine(memory: int) -> None:
    """Give up, for good, what a template must not use; the kernel ends the process beyond it."""
    if sys.platform == "win32":
        return
    import resource

    with (
        open("/proc/self/statm", encoding="ascii")
        if sys.platform == "linux"
        else (contextlib.nullcontext([])) as file
    ):
        pages = next(iter(file), "0").split()[0]
    mapped = int(pages) * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (mapped, mapped))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _limit_time(seconds: float) -> None:
    """Let the kernel end this process after some seconds of wall or processor time; 0: never."""
    if sys.platform == "win32":
        return
    import resource

    signal.setitimer(signal.ITIMER_REAL, seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (processor if seconds else hard, hard))


if __name__ == "__main__":
    main()
