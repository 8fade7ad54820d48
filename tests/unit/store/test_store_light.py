"""What must work without torch, and the worker that must not know anything."""

import ast
import json
import subprocess
import sys

import torch

from whet.formats.activation import parse_activation
from whet.formats.spec import parse
from whet.formats.weight import written
from whet.model.site import Site
from whet.store.dialects import choose
from whet.store.scheme import Scheme
from whet.store.template import WORKER
from whet.store.writer import write_shard

SITE = Site("attn.q", "m", (6, 128), "out", "hidden", "attn.in", layer=0)

LIGHT = ("shard", "folder", "resolve", "manifest", "publish", "tokenizer", "template", "side_files",
         "finite", "scheme", "hook", "durable", "json_file", "refusals", "regular",
         "array", "contents", "dialects", "dialects.ct_planes")  # fmt: skip
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


def test_every_dialect_is_read_without_torch(tmp_path):
    for name, format_ in (("a", "int3-g64-affine"), ("b", "nvfp4"), ("c", "codebook4-g64")):
        place, scheme = SITE, Scheme(parse(format_), parse_activation("int8-tensor-static"))
        scheme = Scheme(scheme.format) if name == "b" else scheme
        dialect = choose({place: scheme}).dialect
        weight = written(torch.randn(6, 128), scheme.format)
        folder = tmp_path / name
        folder.mkdir()
        config = {"quantization_config": dialect.config({place.module: scheme}, [])}
        (folder / "config.json").write_text(json.dumps(config))
        tensors = dialect.tensors(place, weight, scheme, torch.tensor([0.5]))
        write_shard(folder / "model.safetensors", tensors)
        code = (
            "from pathlib import Path; from whet.store.contents import Contents; "
            "from whet.store.folder import Folder; from whet.model.site import Site; "
            f"found = Contents(Folder(Path({str(folder)!r})), mapped=True); site = {SITE!r}; "
            "assert found.weight(site).planes; found.activation(site)"
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
