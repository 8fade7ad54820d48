"""Running needs no torch: the files that the light package reads import without it."""

import subprocess
import sys

import pytest
from tests.house.places import SOURCE

LIGHT = [
    "base/*.py",
    "formats/spec.py",
    "formats/element.py",
    "formats/activation.py",
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
    "report/*.py",
    "api/__init__.py",
    "api/attach.py",
    "api/catalogue.py",
    "api/checks.py",
    "api/inspection.py",
    "cli/*.py",
    "runtime/sample.py",
    "runtime/stops.py",
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


@pytest.mark.parametrize("pattern", LIGHT)
def test_every_pattern_names_a_file(pattern):
    assert list(SOURCE.glob(pattern))
