"""The entry point: parse, call the verb, and end with the exit code that says what happened."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from whet.base.threads import sleep_while_waiting
from whet.cli.failure import code_of
from whet.cli.interrupt import terminable
from whet.cli.lazy import Verbs
from whet.version import __version__

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
ENDING = (
    "SOURCE is a model folder, a .gguf file, `demo`, or a hub id `org/name[@revision]`. "
    "Results go to stdout, everything else to stderr."
)


@click.group(cls=Verbs, context_settings=SETTINGS, epilog=ENDING, no_args_is_help=False)
@click.version_option(__version__, "-V", "--version", prog_name="whet")
def whet() -> None:
    """Make large language models smaller, and prove what that cost."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(code(sys.argv[1:] if argv is None else argv))


def code(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code; the one broad handler of the command line."""
    words = list(argv) or ["--help"]
    try:
        with terminable():
            _prepare(words)
            done = whet.main(words, prog_name="whet", standalone_mode=False)
            sys.stdout.flush()
    except SystemExit as end:  # how click ends after completing a word for the shell
        return end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - the top: every error becomes an exit code
        return code_of(error, machine=wants_json(words))
    return done if isinstance(done, int) else 0


def wants_json(words: Sequence[str]) -> bool:
    """Return whether the arguments ask for JSON, also if they cannot be parsed."""
    pairs = zip(words, [*words[1:], ""], strict=False)
    return any(
        word == "--format=json" or (word, after) == ("--format", "json") for word, after in pairs
    )


def _prepare(words: Sequence[str]) -> None:
    """Set what libraries read as they are imported: offline, quiet, threads that sleep."""
    if "--offline" in words:
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sleep_while_waiting()


if __name__ == "__main__":
    main()
