"""Running needs no torch: the files that the light package reads import without it."""

import os
import subprocess
import sys

import pytest
from tests.gguf_files import converted
from tests.house.places import SOURCE
from tests.small import FEW, small_model

import whet
from whet.kernels.native import missing

LIGHT = [
    "base/*.py",
    "formats/spec.py",
    "formats/element.py",
    "formats/activation.py",
    "formats/keeping.py",
    "model/site.py",
    "model/architecture.py",
    "model/family.py",
    "model/families/*.py",
    "store/shard.py",
    "store/folder.py",
    "store/resolve.py",
    "store/manifest.py",
    "store/publish.py",
    "store/tokenizer.py",
    "store/template.py",
    "store/source_card.py",
    "store/hook.py",
    "store/array.py",
    "store/contents.py",
    "store/dialects/__init__.py",
    "store/gguf/*.py",
    "kernels/native.py",
    "kernels/described.py",
    "graph/*.py",
    "graph/executors/native.py",
    "measure/*.py",
    "report/*.py",
    "report/search/*.py",
    "api/__init__.py",
    "api/attach.py",
    "api/catalogue.py",
    "api/checks.py",
    "api/explanation.py",
    "api/inspection.py",
    "api/operators.py",
    "graph/*.py",
    "graph/rewrites/*.py",
    "cli/*.py",
    "kernels/described.py",
    "kernels/native.py",
    "kernels/table.py",
    "runtime/[!r]*.py",
    "runtime/reply.py",
]
HEAVY = ["torch", "transformers", "jaxtyping", "scipy", "safetensors"]


def name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_light_files_import_without_the_extra():
    files = [path for pattern in LIGHT for path in sorted(SOURCE.glob(pattern))]
    assert len(files) > len(LIGHT)
    program = f"import sys\nsys.modules.update(dict.fromkeys({HEAVY}))\n" + "".join(
        f"import {name(path)}\n" for path in files
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


WORKS = """
import sys
from whet.cli.main import code
done = code({words!r})
heavy = sorted(set({heavy!r}) & set(sys.modules))
print(done, heavy, file=sys.stderr)
"""


@pytest.mark.skipif(missing() is not None, reason=f"{missing()}")
@pytest.mark.parametrize(
    "words",
    [
        ["run", "FOLDER", "It was", "--max-tokens", "3", "--kernels", "require"],
        ["run", "FILE", "It was", "--max-tokens", "3", "--executor", "native"],
        ["inspect", "FOLDER"],
        ["inspect", "FILE"],
        ["explain", "FOLDER"],
        ["verify", "FOLDER"],
        ["measure", "FOLDER", "--data", "TEXT", "--kernels", "require", "--against", "FOLDER"],
        ["list", "formats"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_running_imports_neither_torch_nor_transformers(words, saved):
    asked = [str(saved.get(word, word)) for word in words]
    program = WORKS.format(words=asked, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr


FIRST = ["run", "demo", "It was", "--max-tokens", "1", "--kernels", "require"]
SECONDS = 0.8  # of the processor, from the shell to the first token of the demo


@pytest.mark.skipif(missing() is not None, reason=f"{missing()}")
def test_the_first_token_comes_soon():
    """Times of the processor, the best of three: what others do on this machine does not count."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "whet", *FIRST], capture_output=True, check=True)
        after = os.times()
        used = after.children_user + after.children_system
        spent.append(used - before.children_user - before.children_system)
    assert min(spent) < SECONDS


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A compressed folder with its manifest, a GGUF file, and a short text."""
    place = tmp_path_factory.mktemp("light")
    source = small_model(place / "source", 2)
    whet.compress(source, "int4-fast", set=FEW, out=place / "int4")
    (place / "text.txt").write_text("It was a dark and stormy night. " * 40)
    return {
        "FOLDER": place / "int4", "TEXT": place / "text.txt",
        "FILE": converted(source, place / "x.gguf", "Q8_0"),
    }  # fmt: skip


@pytest.mark.parametrize("pattern", LIGHT)
def test_every_pattern_names_a_file(pattern):
    assert list(SOURCE.glob(pattern))
