"""What must work without torch, and the worker that must not know anything."""

import ast
import subprocess
import sys

from whet.store.template import WORKER

LIGHT = ("shard", "folder", "resolve", "manifest", "publish", "tokenizer", "template", "side_files",
         "finite", "scheme", "hook", "durable", "json_file", "refusals", "regular")  # fmt: skip
HEAVY = ("torch", "transformers", "jaxtyping", "safetensors", "pydantic")


def heavy_after(code: str) -> str:
    found = f"import sys; {code}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", found], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_light_modules_import_no_torch():
    names = ", ".join(f"whet.store.{name}" for name in LIGHT)
    code = (
        f"import {names}; from whet.store.folder import Folder; "
        "from whet.store.resolve import demo; from whet.store.tokenizer import Tokenizer; "
        "Folder(demo()).digest(); Tokenizer(demo()).encode('a')"
    )
    assert heavy_after(code) == "[]"


def test_importing_whet_imports_neither_torch_nor_transformers():
    found = heavy_after("import whet")
    assert "torch" not in found
    assert "transformers" not in found


def test_the_template_worker_imports_jinja_alone():
    tree = ast.parse(WORKER.read_text())
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"jinja2"}
