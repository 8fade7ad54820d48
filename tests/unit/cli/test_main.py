"""Every end has its exit code, and at most three lines say why."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import click
import pytest

from whet import api
from whet.base import errors
from whet.cli.failure import code_of, one_line
from whet.cli.main import code, wants_json

TREE = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.WhetError)
]


@pytest.fixture
def failing(monkeypatch):
    """Make `whet inspect x` raise."""

    def prepared(error):
        def inspect(*_, **__):
            raise error

        monkeypatch.setattr(api, "inspect", inspect)

    return prepared


@pytest.mark.parametrize("kind", TREE)
def test_errors_on_purpose_have_their_codes_and_two_lines(kind, failing, capsys):
    failing(kind("found x\nexpected y", "do\nz"))
    assert code(["inspect", "x"]) == kind.code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "whet: error: found x expected y\n  do z\n"


@pytest.mark.parametrize("kind", TREE)
def test_errors_as_json(kind, failing, capsys):
    failing(kind("what", "hint"))
    assert code(["inspect", "x", "--format", "json"]) == kind.code
    told = json.loads(capsys.readouterr().err)["error"]
    assert told == {"kind": kind.__name__, "code": kind.code, "message": "what", "hint": "hint"}


def test_codes_are_those_of_the_table():
    table = {
        line.split()[1]: int(re.search(r"\((\d+)\)", line)[1])
        for line in errors.__doc__.splitlines()
        if line.startswith(("├", "└"))
    }
    assert table == {kind.__name__: kind.code for kind in TREE if kind is not errors.WhetError}


def test_escape_sequences_in_names_do_not_reach_the_terminal(failing, capsys):
    failing(errors.FolderError("\x1b]0;owned\x07 in \x1b[31m\u202ename", "\x1b[2J"))
    code(["inspect", "x"])
    assert capsys.readouterr().err == "whet: error: in name\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compres", "demo"], "Did you mean 'compress'?"),
        (["nonsense"], "Verbs: compress, search"),
        (["compress"], "Missing argument 'SOURCE'"),
        (["compress", "demo", "--recipee", "x"], "Did you mean"),
        (["compress", "demo", "--resume", "maybe"], "'auto', 'required', 'never'"),
        (["compress", "demo", "--seed", "-1"], "-1"),
        (["list", "recipe"], "recipes"),
        (["run", "demo", "x", "--temperature", "hot"], "hot"),
        (["doctor", "more"], "unexpected extra argument"),
        (["--nonsense"], "No such option"),
    ],
)
def test_usage_is_two_lines_and_exit_2(words, told, capsys):
    assert code(words) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert len(shown.splitlines()) == 2
    assert "--help" in shown


def test_help_without_arguments(capsys):
    assert code([]) == 0
    assert "Verbs:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a", "--format", "json"], True),
        (["a", "--format=json"], True),
        (["a", "json"], False),
        (["--format"], False),
        ([], False),
    ],
)
def test_json_is_recognised_in_any_arguments(words, wanted):
    assert wants_json(words) is wanted


def test_a_bug_leaves_a_trace_without_secrets(failing, capsys):
    failing(ValueError("token hf_abcdefghijkl in\nmany lines"))
    assert code(["inspect", "x"]) == 1
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 2
    assert "ValueError: token [removed] in many lines" in shown
    path = re.search(r"(\S+whet-error-\S+\.txt)", shown)[1]
    with open(path, encoding="utf-8") as file:
        trace = file.read()
    os.unlink(path)
    assert "Traceback" in trace
    assert "hf_abc" not in trace


def test_debugging_shows_the_trace(failing, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WHET_DEBUG", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    failing(ValueError("x"))
    assert code(["inspect", "x"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "WHET_DEBUG=1 shows the trace." in shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (MemoryError(), 4),
        (ModuleNotFoundError("x", name="torch.nn"), 69),
        (ModuleNotFoundError("x", name="other"), 1),
    ],
)
def test_exceptions_of_python(error, expected, failing):
    failing(error)
    assert code(["inspect", "x"]) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["compress", "demo"],
        ["compress", "demo", "--dry-run"],
        ["measure", "demo"],
        ["run", "demo", "x"],
        ["schema"],
    ],
)
def test_without_torch_the_extra_is_named(words, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert code(words) == 69
    assert 'pip install "whet[compress]"' in capsys.readouterr().err


def test_a_closed_pipe_is_silent():
    command = f"{sys.executable} -m whet list formats | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode in {0, 141}


SLEEPER = """
import sys, time
from whet import api
from whet.cli.main import main
def inspect(*_, **__):
    print("ready", flush=True)
    time.sleep(60)
api.inspect = inspect
main(["inspect", "x"])
"""
WORKER = """
import sys, time
from whet import api
from whet.base.errors import StoppedError
from whet.cli.main import main
def compress(*_, stopped, **__):
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.1)
        if stopped() and "stubborn" not in sys.argv:
            raise StoppedError("stopped", "run again")
api.compress = compress
main(["compress", "demo"])
"""


def heedful():
    """Heed interrupts, which a shell lets its background processes ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(program, signals, *words):
    """Run a program, send it signals once it is ready, and return how it ended."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=heedful,  # noqa: PLW1509 - the child starts no thread before it runs
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(0.3)
        _, shown = process.communicate(timeout=30)
    return process.returncode, shown


@pytest.mark.parametrize(
    ("program", "signals", "words", "expected"),
    [
        (SLEEPER, [signal.SIGINT], [], 130),
        (SLEEPER, [signal.SIGTERM], [], 143),
        (WORKER, [signal.SIGINT], [], 75),
        (WORKER, [signal.SIGTERM], [], 75),
        (WORKER, [signal.SIGINT, signal.SIGINT], ["stubborn"], 130),
        (WORKER, [signal.SIGTERM, signal.SIGTERM], ["stubborn"], 143),
    ],
)
def test_signals(program, signals, words, expected):
    found, shown = ended(program, signals, *words)
    assert found == expected
    assert len(shown.splitlines()) <= 3


def test_one_line():
    assert one_line("a\n\x1b[1mb\n") == "a b"


def test_offline_is_told_to_the_libraries(monkeypatch, failing):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    failing(errors.MissingError("x"))
    code(["inspect", "x", "--offline"])
    assert os.environ.pop("HF_HUB_OFFLINE") == "1"


def test_code_of_knows_click():
    assert code_of(click.UsageError("x")) == 2


def test_the_shell_completes_verbs(monkeypatch, capsys):
    monkeypatch.setenv("_WHET_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "whet com")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert code(["com"]) == 0
    assert capsys.readouterr().out == "plain,compress\n"
