"""Help is quick and light, and says what the verbs do."""

import resource
import subprocess
import sys

import pytest
from click import Context

from whet.cli.lazy import VERBS
from whet.cli.main import code, whet

EXTRA = ["torch", "transformers", "jaxtyping", "scipy", "safetensors"]
QUICK = 0.150  # [s] of processor time: what a machine at rest needs
HEAVY = {
    "torch",
    "numpy",
    "transformers",
    "pydantic",
    "rich",
    "yaml",
    "jinja2",
    "tokenizers",
    "huggingface_hub",
    "psutil",
}
PROGRAM = """
import sys
from whet.cli.main import code
assert code(sys.argv[1:]) == 0
print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)
"""
CALLS = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)]


@pytest.mark.parametrize("words", CALLS)
def test_help_imports_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert not HEAVY & set(eval(done.stderr))


@pytest.mark.parametrize("words", [["--help"], ["compress", "--help"]])
def test_help_is_quick(words):
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "whet", *words], stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) <= QUICK


@pytest.mark.parametrize("verb", VERBS)
def test_the_group_and_the_verb_say_the_same(verb, capsys):
    assert code([verb, "--help"]) == 0
    sentence = capsys.readouterr().out.split("\n\n")[1]
    assert " ".join(sentence.split()) == VERBS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_format_and_offline(verb):
    command = whet.get_command(Context(whet), verb)
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--format", "--offline"} <= options


@pytest.mark.parametrize(
    "words",
    [
        ["list", "recipes"],
        ["list", "methods"],
        ["list", "formats"],
        ["list", "families"],
        ["inspect", "demo"],
        ["doctor"],
        ["verify", "."],
    ],
)
def test_light_verbs_run_without_torch(words):
    block = f"import sys; sys.modules.update(dict.fromkeys({EXTRA}))\n"
    program = f"{block}from whet.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == (65 if words[0] == "verify" else 0), done.stderr
