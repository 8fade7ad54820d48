"""The process in which one chat template is rendered; run as a script, imports jinja2 alone.

Reads a task (JSON) from stdin, writes {"text"} or {"kind", "message"} to stdout.
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
    """Render the template of the task on stdin."""
    task = json.loads(sys.stdin.buffer.read())
    sys.path[:] = task["path"]
    environment = _environment()
    for name in LATER:
        importlib.import_module(name)
    _confine(task["seconds"], task["memory"])
    answer = _answer(environment, task)
    sys.stdout.buffer.write(json.dumps(answer).encode())


def _answer(environment: Any, task: dict[str, Any]) -> dict[str, str]:  # noqa: ANN401
    """Return the text, or why there is none."""
    from jinja2.exceptions import SecurityError, TemplateError

    try:
        text = environment.from_string(task["template"]).render(**task["values"])
    except SecurityError as error:
        return {"kind": "template", "message": f"unsafe: {error}"}
    except (MemoryError, RecursionError) as error:
        return {"kind": "limit", "message": type(error).__name__}
    except (TemplateError, ArithmeticError, AttributeError, LookupError) as error:
        return {"kind": "template", "message": str(error)}
    except (TypeError, ValueError) as error:
        return {"kind": "template", "message": str(error)}
    if len(text) > task["output"]:
        return {"kind": "limit", "message": "output too long"}
    return {"text": text}


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


def _confine(seconds: float, memory: int) -> None:
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
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (mapped, mapped))
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
